"""What waits on a trainer for its next `train`: it tells when that begins, and by which error it is left.

The Trainer has no event for either. The first thing that `train` calls is the `start` of its memory tracker, and what
it runs is its own `_inner_training_loop`, once for every batch size that it tries: a stand-in for each, on the
instance. Neither holds a trainer: without TraceML a trainer is freed with its last name, and so it is with it.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.own_frames import hide_own_frames

LOOP = "_inner_training_loop"
logger = get_error_logger("Trainer")


class TrainingListener(Protocol):
    """Who is told."""

    def training_begins(self) -> None:
        """A `train` begins."""
        ...

    def loop_begins(self) -> None:
        """Its loop begins: for the first time, or with a smaller batch."""
        ...

    def training_left(self, trainer: Any, error: BaseException) -> None:
        """Its loop has raised."""
        ...


ListenerOf = Callable[[Any], TrainingListener | None]


def await_training(trainer: Any, listener_of: ListenerOf) -> None:
    """Put the stand-ins on `trainer`, unless they or somebody else's are there; they tell `listener_of(trainer)`."""
    if LOOP not in vars(trainer) and hasattr(type(trainer), LOOP):
        setattr(trainer, LOOP, WatchedLoop(trainer, listener_of))
    tracker = getattr(trainer, "_memory_tracker", None)
    if tracker is not None and getattr(tracker, "skip_memory_metrics", False) and "start" not in vars(tracker):
        tracker.start = TrainingBegins(tracker, listener_of)


class TrainingBegins:
    """Stands in for the `start` of a memory tracker that is switched off and has nothing to do."""

    def __init__(self, tracker: Any, listener_of: ListenerOf) -> None:
        """Tell of the trainers that use `tracker`."""
        self._tracker = weakref.ref(tracker)
        self._listener_of = listener_of

    def __call__(self) -> None:
        """A `train`, an `evaluate` or a `predict` begins."""
        caller = sys._getframe(1)
        if caller.f_code.co_name == "train":
            with fail_open(logger, "noting that training begins"):
                listener = self._listener_of(caller.f_locals["self"])
                if listener is not None:
                    listener.training_begins()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is the tracker's own method."""
        return getattr, (self._tracker(), "start")


class WatchedLoop:
    """Stands in for a trainer's loop and passes everything on, an error as well."""

    def __init__(self, trainer: Any, listener_of: ListenerOf) -> None:
        """Tell of `trainer`."""
        self._trainer = weakref.ref(trainer)
        self._listener_of = listener_of

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Run the loop."""
        trainer = self._owner()
        loop = getattr(type(trainer), LOOP)
        listener = None
        with fail_open(logger, "noting that the loop begins"):
            listener = self._listener_of(trainer)
            if listener is not None:
                listener.loop_begins()
        try:
            return loop(trainer, *arguments, **options)
        except BaseException as error:
            if listener is not None:
                with fail_open(logger, "ending a run that an error left"):
                    listener.training_left(trainer, error)
                    hide_own_frames(error)
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is the trainer's own method."""
        return getattr, (self._trainer(), LOOP)

    def _owner(self) -> Any:
        """The trainer that called: a shallow copy of the first one has this very stand-in too."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            candidate = frame.f_locals.get("self")
            if getattr(candidate, "__dict__", {}).get(LOOP) is self:
                return candidate
            frame = frame.f_back
        return self._trainer()


def trainer_among_callers() -> Any:
    """The nearest trainer among the callers: a `self` with callbacks and an accelerator; null where there is none."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if hasattr(candidate, "callback_handler") and hasattr(candidate, "accelerator"):
            return candidate
        frame = frame.f_back
    return None


def trains_among_callers(trainer: Any) -> bool:
    """Whether a `train` of this trainer is going on."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name in ("train", LOOP) and frame.f_locals.get("self") is trainer:
            return True
        frame = frame.f_back
    return False
