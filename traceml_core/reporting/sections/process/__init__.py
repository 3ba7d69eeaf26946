"""The report's section process: loader, builder, formatter, model."""
