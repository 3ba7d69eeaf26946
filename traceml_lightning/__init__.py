"""TraceML for PyTorch Lightning: `Trainer(callbacks=[TraceMLCallback()])`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traceml_lightning.callback import TraceMLCallback

__all__ = ["TraceMLCallback"]


def __getattr__(name: str) -> Any:
    """Load Lightning when the callback is first asked for, not before."""
    if name == "TraceMLCallback":
        from traceml_lightning.callback import TraceMLCallback

        return TraceMLCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
