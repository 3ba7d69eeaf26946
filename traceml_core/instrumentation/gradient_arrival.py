"""The moment when this rank's own gradients are done, which splits backward into own work and the wait for others."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

WATCHED = 2
# Class names of modules that shard or own the gradients of the parameters below them (FSDP, FSDP2, DeepSpeed).
SHARDING_MODULES = ("FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")
SHARDING_ATTRIBUTES = ("ds_id", "ds_tensor", "_hp_mapping")  # DeepSpeed's marks on a parameter, ZeRO 3 and 1-2


class GradientArrival:
    """Stamps the arrival of the gradients of the first two trained parameters: backward reaches them last.

    The hook may run on a thread of autograd's; it stores one number.
    """

    def __init__(self, parameters: list[Any], also: Callable[[], None] | None = None) -> None:
        """Watch these. `also` is called at each arrival, on its thread: `StepRecorder.gradients_arrived`."""
        self._stamp_ns: int | None = None
        self._also = also
        self._handles = [parameter.register_post_accumulate_grad_hook(self._arrived) for parameter in parameters]

    @classmethod
    def attach(cls, module: Any, also: Callable[[], None] | None = None) -> GradientArrival | None:
        """Watch a module; None where its gradients are sharded, or none is trained: the split would not be sound."""
        if any(_is_sharding(part) for part in module.modules()):
            return None
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not parameters or any(_is_sharded(parameter) for parameter in parameters[:WATCHED]):
            return None
        return cls(parameters[:WATCHED], also)

    def take(self) -> int | None:
        """The last arrival since the last call, in `perf_counter_ns`; null where none came."""
        stamp, self._stamp_ns = self._stamp_ns, None
        return stamp

    def detach(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _arrived(self, _: Any) -> None:
        self._stamp_ns = perf_counter_ns()
        if self._also is not None:
            self._also()


def _is_sharding(module: Any) -> bool:
    return any(kind.__name__ in SHARDING_MODULES for kind in type(module).__mro__)


def _is_sharded(parameter: Any) -> bool:
    """FSDP's flat parameters, FSDP2's and tensor parallelism's DTensors, DeepSpeed's partitioned ones."""
    kinds = (type(parameter).__name__, type(getattr(parameter, "data", None)).__name__)
    return any(kind in ("FlatParameter", "DTensor") for kind in kinds) or any(
        hasattr(parameter, name) for name in SHARDING_ATTRIBUTES
    )
