"""The framework-free core of TraceML callbacks. Importing it loads neither torch nor any framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traceml_core.reporting.loaded_run import load_run

__version__ = "0.1.0"
__all__ = ["__version__", "load_run"]


def __getattr__(name: str) -> Any:
    """`load_run` brings numpy, so it is imported when it is first asked for."""
    if name == "load_run":
        from traceml_core.reporting.loaded_run import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
