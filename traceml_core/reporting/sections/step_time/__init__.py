"""The report's section step_time: loader, builder, formatter, model."""
