"""An iteration over a loader whose waits are accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import get_ident
from typing import Any

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.batch_size import BatchSizes
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder


class LoopState:
    """Whether the loop is inside a step now."""

    __slots__ = ("in_step",)

    def __init__(self) -> None:
        """Outside."""
        self.in_step = False


class TracedBatches:
    """One iteration over `loader`: each wait is `input_wait`, starting the loader `loader_start`.

    Where the loop is inside a phase around steps, such as validation, the iteration leaves the clock alone.
    """

    __slots__ = ("_batches", "_clock", "_loader", "_loop", "_sizes", "_steps", "_thread")

    def __init__(self, loader: Iterable[Any], clock: PhaseClock, steps: StepRecorder, loop: LoopState) -> None:
        """An iteration that begins at its first batch."""
        self._loop = loop
        self._loader = loader
        self._clock = clock
        self._sizes = BatchSizes()
        self._steps = steps
        self._thread = get_ident()
        self._batches: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if get_ident() != self._thread or self._clock.owner > Phase.STARTUP:
            if self._batches is None:
                self._batches = iter(self._loader)
            return next(self._batches)
        self._clock.leave(Phase.STARTUP)
        self._steps.fetch()
        try:
            batch = self._start() if self._batches is None else self._wait(self._batches, Phase.INPUT_WAIT)
        except StopIteration:
            if not self._loop.in_step:
                self._steps.finish()
            raise
        self._steps.micro_batch(*self._sizes.of(batch))
        return batch

    def _start(self) -> Any:
        """Make the iterator; where workers must start, the first batch waits for them and not for its own data."""
        clock = self._clock
        clock.enter(Phase.LOADER_START)
        try:
            self._batches = iter(self._loader)
        finally:
            clock.leave(Phase.LOADER_START)
        workers = getattr(self._loader, "num_workers", 0)
        return self._wait(self._batches, Phase.LOADER_START if workers else Phase.INPUT_WAIT)

    def _wait(self, batches: Iterator[Any], phase: Phase) -> Any:
        clock = self._clock
        clock.enter(phase)
        try:
            return next(batches)
        except StopIteration:
            if getattr(self._loader, "num_workers", 0):
                clock.book(Phase.LOADER_START)  # there was nothing left to wait for: the workers were shut down
            raise
        finally:
            clock.leave(phase)
