"""The trainer's list of callbacks while a run is open: passing through it names what each callback costs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.phase_clock import PhaseClock

if TYPE_CHECKING:
    from traceml_hf.trainer_run import TrainerRun

TRACKERS = "transformers.integrations"


class TimedCallbacks(list[Any]):
    """A list that, when iterated, yields ours first and stamps the clock around each of the others.

    Ours comes first so that an event's time is told before others add to it, and so that results are written before
    trackers close. The order of the list itself does not change. A copy or pickle of it is a plain list.
    """

    def __init__(self, callbacks: list[Any], ours: Any, clock: PhaseClock, run: TrainerRun) -> None:
        """Hold `callbacks`, of which `ours` is one."""
        super().__init__(callbacks)
        self._ours = ours
        self._clock = clock
        self._run = run
        self._known: list[Any] = []
        self._others: list[tuple[Any, int]] = []
        self._has_ours = False

    def __iter__(self) -> Iterator[Any]:
        if sys._getframe(1).f_code.co_name != "call_event":  # somebody looks through the list: no event, no stamps
            yield from list.__iter__(self)
            return
        if list.__ne__(self, self._known):  # callbacks have come or gone; this compares identities
            self._look()
        if self._has_ours:
            yield self._ours
        enter, leave = self._clock.enter, self._clock.leave
        for callback, slot in self._others:
            enter(slot)
            yield callback
            leave(slot)
        self._run.callbacks_done()

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (list(list.__iter__(self)),)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        import copy

        return [copy.deepcopy(callback, memo) for callback in list.__iter__(self)]

    def _look(self) -> None:
        """Take note of who is in the list now."""
        self._known = list(list.__iter__(self))
        self._others = [(callback, self._slot(callback)) for callback in self._known if callback is not self._ours]
        self._has_ours = len(self._others) < len(self._known)

    def _slot(self, callback: Any) -> int:
        kind = type(callback)
        phase = Phase.LOGGING if kind.__module__.startswith(TRACKERS) else Phase.CALLBACKS
        return self._clock.slot(phase, kind.__name__)
