"""What stands in for the call of a model while a run is open: it tells when forward begins and ends.

torch's own forward hooks would tell as well, but a module with hooks is called by another path: the traceback of an
error in forward then has other lines than without TraceML. And a model that holds hooks takes them along wherever it is
copied or pickled to.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from traceml_hf.stock_copies import leave_out_no_longer, leave_out_of_copies

CALL, COMPILED_CALL = "_call_impl", "_compiled_call_impl"


class WatchedCall(ABC):
    """Stands in for a module's call, on the instance; a copy or pickle of it is the copied module's own."""

    __slots__ = ("__weakref__", "_module", "_name", "call")

    def __init__(self, module: Any, name: str) -> None:
        """Stand in for what `module` has under `name`."""
        self._module, self._name, self.call = module, name, getattr(module, name)

    @abstractmethod
    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Call the module; tell where its forward begins and ends, also where it raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._module, self._name)


def watch_calls(module: Any, make: Callable[[Any, str], WatchedCall]) -> Callable[[], object]:
    """Put `make(module, name)` in the place of a torch module's call, which has this name; returns what undoes it."""
    attributes = vars(module)
    name = CALL if attributes.get(COMPILED_CALL) is None else COMPILED_CALL  # the latter after `module.compile()`
    before, watched = attributes.get(name), make(module, name)
    had = before is not None
    _pass_unseen_by_the_compiler(watched)
    attributes[name] = watched
    leave_out_of_copies(module, name, watched, before)
    references = weakref.ref(module), weakref.ref(watched)  # what undoes it must not keep the module alive

    def undo() -> None:
        module, watched = references[0](), references[1]()
        if module is None:
            return
        leave_out_no_longer(module, name)
        if watched is not None and vars(module).get(name) is watched:
            if had:
                vars(module)[name] = watched.call
            else:
                del vars(module)[name]

    return undo


def _pass_unseen_by_the_compiler(watched: WatchedCall) -> None:
    """Where a watched model is compiled later, its forward is what is compiled, and not our call around it."""
    with suppress(ImportError):
        from torch._C._dynamo.eval_frame import skip_code  # type: ignore[attr-defined]

        skip_code(type(watched).__call__.__code__)
