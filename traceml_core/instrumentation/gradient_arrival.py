"""The moment when this rank's own gradients are done, which splits backward into own work and the wait for others."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

WATCHED = 2


class GradientArrival:
    """Stamps the arrival of the gradients of the first two registered parameters: backward reaches them last.

    The hook may run on a thread of autograd's; it stores one number.
    """

    def __init__(self, parameters: list[Any]) -> None:
        """Watch these parameters."""
        self._stamp_ns: int | None = None
        self._handles = [parameter.register_post_accumulate_grad_hook(self._arrived) for parameter in parameters]

    @classmethod
    def attach(cls, module: Any) -> GradientArrival | None:
        """Watch a module; None where its parameters are sharded, or none is trained: the split would not be sound."""
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not parameters or any(_is_sharded(parameter) for parameter in parameters[:WATCHED]):
            return None
        return cls(parameters[:WATCHED])

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


def _is_sharded(parameter: Any) -> bool:
    """FSDP's flat parameters, FSDP2's and tensor parallelism's DTensors, DeepSpeed's partitioned ones."""
    kind = type(parameter).__name__
    local = type(getattr(parameter, "data", None)).__name__
    return "FlatParameter" in kind or "DTensor" in (kind, local) or hasattr(parameter, "ds_id")
