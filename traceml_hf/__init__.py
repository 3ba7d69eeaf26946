"""TraceML for the Hugging Face Trainer; for Accelerate, see `traceml_hf.accelerate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traceml_hf.trainer_callback import TraceMLCallback

__all__ = ["TraceMLCallback"]


def __getattr__(name: str) -> Any:
    """Load transformers when the Trainer's callback is first asked for, not before."""
    if name == "TraceMLCallback":
        try:
            from traceml_hf.trainer_callback import TraceMLCallback
        except ModuleNotFoundError as error:
            if error.name not in ("transformers", "accelerate", "torch"):
                raise
            raise ImportError(f"TraceMLCallback needs {error.name}: pip install 'traceml-callbacks[hf]'") from error
        return TraceMLCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
