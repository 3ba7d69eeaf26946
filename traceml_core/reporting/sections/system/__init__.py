"""The report's section system: loader, builder, formatter, model."""
