"""The trainer's events while a run is open: ours are told first, and what each callback costs has its name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from transformers import DefaultFlowCallback, TrainerCallback

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.loggers.error_log import fail_open, get_error_logger

METHOD = "call_event"
TRACKERS = "transformers.integrations"
NOT_YET: list[Any] = [None]
logger = get_error_logger("Trainer")


class Listener(NamedTuple):
    """A callback that does something at one event, the slot of its time (null: not stamped), its place in the list."""

    callback: Any
    slot: int | None
    place: int


class TimedEvents:
    """Stands in for `call_event` of a trainer's callback handler: tells ours, then has the callbacks called.

    Ours come first so that an event's time is told before others add to it, and so that results are written before
    trackers close. Callbacks that do nothing at an event are not called for it, and where none does anything nobody is:
    that pays for the stamps around the others. Who does is looked up anew in every epoch, and where the list changes.
    """

    __slots__ = (
        "_before",
        "_call_event",
        "_callbacks",
        "_clock",
        "_events",
        "_handler",
        "_listeners",
        "_when_over",
    )

    def __init__(
        self, handler: Any, clock: PhaseClock, events: Mapping[str, Callable[..., None]], when_over: Callable[[], None]
    ) -> None:
        """`events` are told by name; `when_over` is called once all have heard of the training's end."""
        self._handler = handler
        self._clock = clock
        self._events = events
        self._when_over = when_over
        self._listeners: dict[str, Sequence[Listener]] = {}
        self._before = vars(handler).get(METHOD)
        self._call_event = handler.call_event
        # The handler's list is in use now, and may yet change: ours takes its place at the next event.
        self._callbacks = TimedCallbacks((), clock)
        self._callbacks.known = NOT_YET
        handler.call_event = self

    def __call__(self, event: str, args: Any, state: Any, control: Any, **options: Any) -> Any:
        """What the handler's own does: have `event` heard. Gives the control object that the last callback left."""
        ours = self._events.get(event)
        if ours is not None:
            try:
                ours(**options) if options else ours()
            except Exception:
                with fail_open(logger, f"hearing of {event}"):
                    raise
        callbacks = self._callbacks
        if callbacks != callbacks.known or event == "on_epoch_begin":  # some may have come or gone, or changed
            self._look_again()
        listeners = self._listeners.get(event)
        if listeners is None:
            listeners = self._listeners[event] = self._who_listens(event)
        if listeners or self._handler.callbacks is not callbacks:
            callbacks.called = listeners
            control = self._call_event(event, args, state, control, **options)
        if event == "on_train_end":
            self._when_over()
        return control

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is the copied handler's own method."""
        return getattr, (self._handler, METHOD)

    def put_back(self) -> None:
        """Give the handler its method, and a plain list with whatever is in ours now."""
        handler = self._handler
        if vars(handler).get(METHOD) is self:
            del vars(handler)[METHOD]
            if self._before is not None:
                vars(handler)[METHOD] = self._before
        if handler.callbacks is self._callbacks:
            handler.callbacks = list(self._callbacks)

    def _look_again(self) -> None:
        callbacks, handler = self._callbacks, self._handler
        if callbacks.known is NOT_YET:
            callbacks.extend(handler.callbacks)
            handler.callbacks = callbacks
        callbacks.known = list(callbacks)
        self._listeners.clear()

    def _who_listens(self, event: str) -> list[Listener]:
        known = enumerate(self._callbacks.known)
        return [Listener(one, _slot(self._clock, one), place) for place, one in known if not _does_nothing(one, event)]


class TimedCallbacks(list[Any]):
    """The handler's list. The one pass over it that calls an event yields those listening, and stamps their time.

    The order of the list does not change. Where a callback changes the list, the pass goes on as one over a plain list
    does. A copy or pickle of it is a plain list.
    """

    def __init__(self, callbacks: Sequence[Any], clock: PhaseClock) -> None:
        """Hold `callbacks`. `called` are those that the next pass is for, out of those that were `known`."""
        super().__init__(callbacks)
        self._clock = clock
        self.known: list[Any] = []
        self.called: Sequence[Listener] | None = None

    def __iter__(self) -> Iterator[Any]:
        called, self.called = self.called, None
        return super().__iter__() if called is None else self._stamped(called)

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (list(super().__iter__()),)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return [copy.deepcopy(callback, memo) for callback in super().__iter__()]

    def _stamped(self, called: Sequence[Listener]) -> Iterator[Any]:
        note, now, known = self._clock.note, self._clock.now, self.known
        for callback, slot, place in called:
            if slot is None:
                yield callback
            else:
                note((slot, now()))
                yield callback
                note((~slot, now()))
            if self != known:
                yield from self._rest(place + 1)
                return

    def _rest(self, place: int) -> Iterator[Any]:
        """Whoever has this place in the list when it is their turn, and those after it."""
        note, now = self._clock.note, self._clock.now
        while place < len(self):
            slot = _slot(self._clock, self[place])
            if slot is not None:
                note((slot, now()))
            yield self[place]
            if slot is not None:
                note((~slot, now()))
            place += 1


def _slot(clock: PhaseClock, callback: Any) -> int | None:
    kind = type(callback)
    if kind is DefaultFlowCallback:
        return None  # the trainer's own decisions: a comparison or two
    phase = Phase.LOGGING if kind.__module__.startswith(TRACKERS) else Phase.CALLBACKS
    return clock.slot(phase, kind.__name__)


def _does_nothing(callback: Any, event: str) -> bool:
    """Whether the callback has, for this event, the empty method that every callback inherits."""
    kind: Any = type(callback)
    empty = getattr(TrainerCallback, event, None)
    if empty is None or kind.__getattribute__ is not object.__getattribute__:
        return False
    return getattr(kind, event, None) is empty and event not in getattr(callback, "__dict__", ())
