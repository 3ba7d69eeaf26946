"""The trainer's list of callbacks while a run is open: passing through it names what each callback costs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from transformers import TrainerCallback

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.phase_clock import PhaseClock

FRAMEWORK = "transformers."
TRACKERS = "transformers.integrations"


class TimedCallbacks(list[Any]):
    """A list that, when an event is sent through it, yields ours first and stamps the clock around each of the others.

    Ours comes first so that an event's time is told before others add to it, and so that results are written before
    trackers close. The framework's own callbacks that do nothing at an event are passed over: that pays for the stamps.
    The order of the list itself does not change. A copy or pickle of it is a plain list.
    """

    def __init__(self, callbacks: list[Any], ours: Any, clock: PhaseClock, when_over: Callable[[], None]) -> None:
        """Hold `callbacks`, of which `ours` is one; `when_over` is called once all have heard of the training's end."""
        super().__init__(callbacks)
        self._ours = ours
        self._clock = clock
        self._when_over = when_over
        self._known: list[Any] = []
        self._hearing: dict[str, tuple[bool, list[tuple[Any, int]]]] = {}

    def __iter__(self) -> Iterator[Any]:
        caller = sys._getframe(1)
        if caller.f_code.co_name != "call_event":  # somebody looks through the list: no event, no stamps
            yield from list.__iter__(self)
            return
        event = caller.f_locals["event"]
        del caller
        if list.__ne__(self, self._known):  # callbacks have come or gone; this compares identities
            self._known = list(list.__iter__(self))
            self._hearing.clear()
        hearing = self._hearing.get(event) or self._who_hears(event)
        if hearing[0]:
            yield self._ours
        enter, leave = self._clock.enter, self._clock.leave
        for callback, slot in hearing[1]:
            enter(slot)
            yield callback
            leave(slot)
        if event == "on_train_end":
            self._when_over()

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (list(list.__iter__(self)),)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        import copy

        return [copy.deepcopy(callback, memo) for callback in list.__iter__(self)]

    def _who_hears(self, event: str) -> tuple[bool, list[tuple[Any, int]]]:
        """Whether ours does something at this event, and who else does, with the slot of each."""
        hearing = [callback for callback in self._known if not self._is_passed_over(callback, event)]
        others = [(callback, self._slot(callback)) for callback in hearing if callback is not self._ours]
        self._hearing[event] = found = (len(others) < len(hearing), others)
        return found

    def _slot(self, callback: Any) -> int:
        kind = type(callback)
        phase = Phase.LOGGING if kind.__module__.startswith(TRACKERS) else Phase.CALLBACKS
        return self._clock.slot(phase, kind.__name__)

    def _is_passed_over(self, callback: Any, event: str) -> bool:
        """Whether ours, or one of the framework's, has an empty method for an event; others may change as they like."""
        kind = type(callback)
        if callback is not self._ours and not kind.__module__.startswith(FRAMEWORK):
            return False
        empty = getattr(TrainerCallback, event, None)
        return empty is not None and getattr(kind, event, None) is empty and event not in vars(callback)
