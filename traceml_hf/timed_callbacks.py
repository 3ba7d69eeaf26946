"""The trainer's list of callbacks while a run is open: passing through it names what each callback costs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from transformers import TrainerCallback

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.phase_clock import PhaseClock

FRAMEWORK = "transformers."
TRACKERS = "transformers.integrations"


class Hearing(NamedTuple):
    """Who is called at one event, in order, and the slot, by identity, of each whose time is stamped."""

    callbacks: list[Any]
    slots: dict[int, int]
    is_last: bool


class TimedCallbacks(list[Any]):
    """A list that, when an event is sent through it, yields ours first and stamps the clock around each of the others.

    Ours comes first so that an event's time is told before others add to it, and so that results are written before
    trackers close. A callback that does nothing at an event is not stamped, and one of the framework's not even called:
    that pays for the stamps. The order of the list itself does not change. A copy or pickle of it is a plain list.
    """

    def __init__(self, callbacks: list[Any], ours: Any, clock: PhaseClock, when_over: Callable[[], None]) -> None:
        """Hold `callbacks`, of which `ours` is one; `when_over` is called once all have heard of the training's end."""
        super().__init__(callbacks)
        self._ours = ours
        self._clock = clock
        self._when_over = when_over
        self._known: list[Any] = []
        self._hearing: dict[str, Hearing] = {}

    def __iter__(self) -> Iterator[Any]:
        caller = sys._getframe(1)
        if caller.f_code.co_name != "call_event":  # somebody looks through the list: no event, no stamps
            return list.__iter__(self)
        event = caller.f_locals["event"]
        if list.__ne__(self, self._known):  # callbacks have come or gone; this compares identities
            self._known = list(list.__iter__(self))
            self._hearing.clear()
        hearing = self._hearing.get(event) or self._who_hears(event)
        return self._stamped(hearing) if hearing.slots or hearing.is_last else iter(hearing.callbacks)

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (list(list.__iter__(self)),)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        import copy

        return [copy.deepcopy(callback, memo) for callback in list.__iter__(self)]

    def _stamped(self, hearing: Hearing) -> Iterator[Any]:
        enter, leave, slot_of = self._clock.enter, self._clock.leave, hearing.slots.get
        for callback in hearing.callbacks:
            slot = slot_of(id(callback))
            if slot is None:
                yield callback
            else:
                enter(slot)
                yield callback
                leave(slot)
        if hearing.is_last:
            self._when_over()

    def _who_hears(self, event: str) -> Hearing:
        ours_first = sorted(self._known, key=lambda callback: callback is not self._ours)
        active = {id(callback) for callback in ours_first if not _is_empty(callback, event)}
        called = [callback for callback in ours_first if id(callback) in active or not _is_known(callback, self._ours)]
        stamped = [callback for callback in called if id(callback) in active and callback is not self._ours]
        slots = {id(callback): self._slot(callback) for callback in stamped}
        self._hearing[event] = found = Hearing(called, slots, is_last=event == "on_train_end")
        return found

    def _slot(self, callback: Any) -> int:
        kind = type(callback)
        phase = Phase.LOGGING if kind.__module__.startswith(TRACKERS) else Phase.CALLBACKS
        return self._clock.slot(phase, kind.__name__)


def _is_known(callback: Any, ours: Any) -> bool:
    """Whether it is ours or one of the framework's, whose methods stay as they are; others may change as they like."""
    return callback is ours or type(callback).__module__.startswith(FRAMEWORK)


def _is_empty(callback: Any, event: str) -> bool:
    empty = getattr(TrainerCallback, event, None)
    return empty is not None and getattr(type(callback), event, None) is empty and event not in vars(callback)
