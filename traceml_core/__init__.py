"""The framework-free core of TraceML callbacks. Importing it loads neither torch nor any framework."""

__version__ = "0.1.0"
