"""What stands in for the call of a model while a run is open: it tells when forward begins and ends.

torch's own forward hooks would tell as well, but a module with hooks is called by another path: the traceback of an
error in forward then has other lines than without TraceML. And a model that holds hooks takes them along wherever it is
copied or pickled to.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

CALL, COMPILED_CALL = "_call_impl", "_compiled_call_impl"


class WatchedCall:
    """Stands in for a module's call, on the instance; a copy or pickle of it is the copied module's own."""

    __slots__ = ("_begins", "_call", "_ends", "_module", "_name")

    def __init__(self, module: Any, name: str, begins: Callable[[Any], object], ends: Callable[[Any], object]) -> None:
        """Call `begins` and `ends` with the module around what `module` has under `name`."""
        self._module, self._name, self._begins, self._ends = module, name, begins, ends
        self._call = getattr(module, name)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Call the module."""
        self._begins(self._module)
        try:
            return self._call(*inputs, **options)
        finally:
            self._ends(self._module)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._module, self._name)


def watch_calls(module: Any, begins: Callable[[Any], object], ends: Callable[[Any], object]) -> Callable[[], object]:
    """Have `begins(module)` and `ends(module)` called around every forward of a torch module; returns what undoes it.

    `ends` is called also where forward raises.
    """
    attributes = vars(module)
    name = CALL if attributes.get(COMPILED_CALL) is None else COMPILED_CALL  # the latter after `module.compile()`
    _pass_unseen_by_the_compiler()
    before, watched = attributes.get(name), WatchedCall(module, name, begins, ends)
    attributes[name] = watched

    def undo() -> None:
        if attributes.get(name) is watched:
            if before is None:
                del attributes[name]
            else:
                attributes[name] = before

    return undo


def _pass_unseen_by_the_compiler() -> None:
    """Where a watched model is compiled later, its forward is what is compiled, and not our call around it."""
    with suppress(ImportError):
        from torch._C._dynamo.eval_frame import skip_code  # type: ignore[attr-defined]

        skip_code(WatchedCall.__call__.__code__)
