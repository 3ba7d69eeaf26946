"""TraceML for Ray Train: `TraceMLTorchTrainer` in the place of `ray.train.torch.TorchTrainer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traceml_ray.trainer import TraceMLTorchTrainer

__all__ = ["TraceMLTorchTrainer"]


def __getattr__(name: str) -> Any:
    """Load Ray when the trainer is first asked for, not before."""
    if name == "TraceMLTorchTrainer":
        try:
            from traceml_ray.trainer import TraceMLTorchTrainer
        except ModuleNotFoundError as error:
            missing = (error.name or "torch").partition(".")[0]  # Ray's own error for a missing torch has no name
            if missing.startswith("traceml_"):
                raise
            raise ImportError(f"{name} needs {missing}: pip install 'traceml-callbacks[ray]' torch") from error
        return TraceMLTorchTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
