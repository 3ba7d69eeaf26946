"""The report's section step_memory: loader, builder, formatter, model."""
