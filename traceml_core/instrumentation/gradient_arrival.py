"""The moment when this rank's own gradients are done, which splits backward into own work and the wait for others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from traceml_core.instrumentation.phase_clock import PhaseClock

WATCHED = 2
# Class names of modules that shard or own the gradients of the parameters below them (FSDP, FSDP2, DeepSpeed).
SHARDING_MODULES = ("FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")
SHARDING_ATTRIBUTES = ("ds_id", "ds_tensor", "_hp_mapping")  # DeepSpeed's marks on a parameter, ZeRO 3 and 1-2


def split_backward(
    module: Any, clock: PhaseClock, on_device: Callable[[], None] | None = None
) -> Callable[[], None] | None:
    """Note on `clock` whenever gradients of the first two trained parameters arrive: a backward reaches them last.

    `on_device` is called at each arrival, on its thread: `StepRecorder.gradients_arrived`. Returns what ends it; null
    where the gradients of `module` are sharded, or none is trained: the split would not be sound.
    """
    if any(_is_sharding(part) for part in module.modules()):
        return None
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad][:WATCHED]
    if not parameters or any(_is_sharded(parameter) for parameter in parameters):
        return None
    hook = _hook(clock, on_device)
    handles = [parameter.register_post_accumulate_grad_hook(hook) for parameter in parameters]

    def end() -> None:
        for handle in handles:
            handle.remove()

    return end


def _hook(clock: PhaseClock, on_device: Callable[[], None] | None) -> Callable[[Any], None]:
    """What is called with the parameter whose gradient has arrived; the plain one is all C, as the arrivals are."""
    arrivals = clock.arrivals()
    if on_device is None:
        return partial(next, arrivals)

    def arrived(_: Any) -> None:
        next(arrivals)
        on_device()

    return arrived


def _is_sharding(module: Any) -> bool:
    return any(kind.__name__ in SHARDING_MODULES for kind in type(module).__mro__)


def _is_sharded(parameter: Any) -> bool:
    """FSDP's flat parameters, FSDP2's and tensor parallelism's DTensors, DeepSpeed's partitioned ones."""
    kinds = (type(parameter).__name__, type(getattr(parameter, "data", None)).__name__)
    return any(kind in ("FlatParameter", "DTensor") for kind in kinds) or any(
        hasattr(parameter, name) for name in SHARDING_ATTRIBUTES
    )
