"""The moment when this rank's own gradients are done, which splits backward into own work and the wait for others."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

WATCHED = 2
# So many backwards that reach the same parameter last tell which one to watch: a hook costs some microseconds a step.
DECIDED_AFTER = 16
# Class names of modules that shard or own the gradients of the parameters below them (FSDP, FSDP2, DeepSpeed).
SHARDING_MODULES = ("FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")
SHARDING_ATTRIBUTES = ("ds_id", "ds_tensor", "_hp_mapping")  # DeepSpeed's marks on a parameter, ZeRO 3 and 1-2


class GradientArrival:
    """Stamps the arrival of the gradients of the first two trained parameters: backward reaches them last.

    Where it is the same of the two that comes last each time, only that one is watched after a while; both are again,
    and for good, once it does not come. The hook may run on a thread of autograd's; it stores two numbers.
    """

    def __init__(self, parameters: list[Any], also: Callable[[], None] | None = None) -> None:
        """Watch these. `also` is called at each arrival, on its thread: `StepRecorder.gradients_arrived`."""
        self._stamp_ns: int | None = None
        self._also = also
        self._parameters = [weakref.ref(parameter) for parameter in parameters]
        self._handles: dict[int, Any] = {}
        self._undecided = DECIDED_AFTER
        self._last = self._earlier = -1
        self._watch_all()

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
        """The last arrival since the last call, in `perf_counter_ns`; null where none came. Once a backward."""
        stamp, self._stamp_ns = self._stamp_ns, None
        if self._undecided or stamp is None:
            self._decide(stamp is not None)
        return stamp

    def detach(self) -> None:
        """Watch no longer."""
        self._parameters.clear()
        while self._handles:
            self._handles.popitem()[1].remove()

    def _watch_all(self) -> None:
        for place, reference in enumerate(self._parameters):
            parameter = reference()
            if parameter is not None and place not in self._handles:
                hook = functools.partial(self._arrived, place)
                self._handles[place] = parameter.register_post_accumulate_grad_hook(hook)

    def _arrived(self, place: int, _: Any) -> None:
        self._stamp_ns, self._last = perf_counter_ns(), place
        if self._also is not None:
            self._also()

    def _decide(self, has_come: bool) -> None:
        """Which of the parameters are worth watching, after one more backward."""
        if not self._undecided:
            self._watch_all()
        elif has_come:
            self._undecided = self._undecided - 1 if self._earlier in (-1, self._last) else 0
            if self._undecided == 0 and self._earlier == self._last:
                for place in [place for place in self._handles if place != self._last]:
                    self._handles.pop(place).remove()
            self._earlier = self._last


def _is_sharding(module: Any) -> bool:
    return any(kind.__name__ in SHARDING_MODULES for kind in type(module).__mro__)


def _is_sharded(parameter: Any) -> bool:
    """FSDP's flat parameters, FSDP2's and tensor parallelism's DTensors, DeepSpeed's partitioned ones."""
    kinds = (type(parameter).__name__, type(getattr(parameter, "data", None)).__name__)
    return any(kind in ("FlatParameter", "DTensor") for kind in kinds) or any(
        hasattr(parameter, name) for name in SHARDING_ATTRIBUTES
    )
