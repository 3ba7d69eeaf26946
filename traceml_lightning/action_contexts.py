"""What a profiled action means: a context manager that books its time to a phase, one object an action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from traceml_core.core.phases import INPUT_WAIT, Phase
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder


class Nothing:
    """An action that nobody maps."""

    __slots__ = ()

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


class InPhase:
    """An action whose time belongs to one slot of the clock."""

    __slots__ = ("_leave", "_note", "_now", "_slot")

    def __init__(self, clock: PhaseClock, slot: int) -> None:
        self._note, self._now, self._leave, self._slot = clock.note, clock.now, clock.leave, int(slot)

    def __enter__(self) -> None:
        """The slot owns the time."""
        self._note((self._slot, self._now()))

    def __exit__(self, *_: object) -> None:
        """The slot owned the time."""
        self._leave(self._slot)


class FitApart(InPhase):
    """A callback's hook that may fit by itself, as a learning rate finder does: those steps are none of the run's."""

    __slots__ = ("_hear", "_mute")

    def __init__(self, clock: PhaseClock, slot: int, mute: Callable[[], None], hear: Callable[[], None]) -> None:
        super().__init__(clock, slot)
        self._mute, self._hear = mute, hear

    def __enter__(self) -> None:
        """The slot owns the time, whatever goes on in it."""
        super().__enter__()
        self._mute()

    def __exit__(self, *_: object) -> None:
        """From here on actions are the run's again."""
        self._hear()
        self._leave(self._slot)


class OptimizerStep(InPhase):
    """The optimizer's step, its closure included: forward and backward inside it claim their own time."""

    __slots__ = ("_steps",)

    def __init__(self, clock: PhaseClock, steps: StepRecorder) -> None:
        super().__init__(clock, Phase.OPTIMIZER)
        self._steps = steps

    def __exit__(self, *error: object) -> None:
        """The optimizer has stepped, unless it raised."""
        self._note((~self._slot, self._now()))
        if not error or error[0] is None:
            self._steps.optimizer_step()


class Fetch:
    """A fetch: it ends the step before it. The first of an epoch belongs to the start of the loader's workers.

    `first` is set for that one, and for the first after a validation.
    """

    __slots__ = ("_clock", "_starts_workers", "_steps", "first")

    def __init__(self, clock: PhaseClock, steps: StepRecorder, starts_workers: Callable[[], bool]) -> None:
        self._clock, self._steps, self._starts_workers = clock, steps, starts_workers
        self.first = False

    def __enter__(self) -> None:
        """Waiting for data."""
        self._steps.fetch()
        if self.first:
            self._clock.leave(Phase.VALIDATION)
            if not self._starts_workers():
                self._end_first()
        clock = self._clock
        clock.note((INPUT_WAIT, clock.now()))

    def __exit__(self, *_: object) -> None:
        """The batch is there."""
        clock = self._clock
        clock.note((~INPUT_WAIT, clock.now()))
        if self.first:
            self._end_first()

    def _end_first(self) -> None:
        """What comes before the first batch is over."""
        self.first = False
        self._clock.leave(Phase.LOADER_START)


class Epoch:
    """An epoch of training: up to its first batch, the loader starts."""

    __slots__ = ("_clock", "_fetch")

    def __init__(self, clock: PhaseClock, fetch: Fetch) -> None:
        self._clock, self._fetch = clock, fetch

    def __enter__(self) -> None:
        """The start-up is over; the loader's begins."""
        self._clock.leave(Phase.STARTUP)
        self._clock.enter(Phase.LOADER_START)
        self._fetch.first = True

    def __exit__(self, *_: object) -> None:
        """An epoch without a batch leaves the loader's start open, one that ends with a validation of nothing that."""
        if self._fetch.first:
            self._clock.leave(Phase.VALIDATION)
            self._fetch.__exit__()


class ValidationBegins:
    """An action at whose end validation begins: Lightning tells of it only by what comes just before.

    Where there is nothing to validate no hook tells of its end: the next fetch does, or the end of the epoch.
    """

    __slots__ = ("_clock", "_fetch")

    def __init__(self, clock: PhaseClock, fetch: Fetch) -> None:
        self._clock, self._fetch = clock, fetch

    def __enter__(self) -> None:
        """Not yet."""

    def __exit__(self, *_: object) -> None:
        """Validation owns the time from here."""
        self._clock.enter(Phase.VALIDATION)
        self._fetch.first = True


class Both:
    """An action that the user's own profiler measures as well."""

    __slots__ = ("_ours", "_theirs")

    def __init__(self, theirs: Any, ours: Any) -> None:
        self._theirs, self._ours = theirs, ours

    def __enter__(self) -> Any:
        """Theirs outside, ours inside: their cost stays out of our phases."""
        entered = self._theirs.__enter__()
        self._ours.__enter__()
        return entered

    def __exit__(self, *error: Any) -> Any:
        """The other way round."""
        self._ours.__exit__(*error)
        return self._theirs.__exit__(*error)
