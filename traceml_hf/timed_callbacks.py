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
        self._slots: dict[int, int] = {}

    def __iter__(self) -> Iterator[Any]:
        if sys._getframe(1).f_code.co_name != "call_event":  # somebody looks through the list: no event, no stamps
            yield from list.__iter__(self)
            return
        ours, clock, slots = self._ours, self._clock, self._slots
        others = [callback for callback in list.__iter__(self) if callback is not ours]
        if len(others) < len(self):
            yield ours
        for callback in others:
            slot = slots.get(id(callback)) or self._slot(callback)
            clock.enter(slot)
            yield callback
            clock.leave(slot)
        self._run.callbacks_done()

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (list(list.__iter__(self)),)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        import copy

        return [copy.deepcopy(callback, memo) for callback in list.__iter__(self)]

    def _slot(self, callback: Any) -> int:
        kind = type(callback)
        phase = Phase.LOGGING if kind.__module__.startswith(TRACKERS) else Phase.CALLBACKS
        slot = self._slots[id(callback)] = self._clock.slot(phase, kind.__name__)
        return slot
