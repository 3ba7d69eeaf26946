"""What the Trainer's loop is doing, told from fetches, forwards and micro-batches."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any

from traceml_core.core.phases import FORWARD, OPTIMIZER, Phase
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_hf.watched_calls import WatchedCall


class TrainerLoop:
    """Listens to the proxy of the training loader and to the trainer's events.

    The Trainer fetches a whole accumulation window, then trains on it. Between `step_begins` and `step_ends` the loop
    is `in_step`; it is `evaluating` from the first batch of an evaluation on. `has_counted` where a proxy has
    shown the window's batches: else its micro-batches are counted where they go backward.
    """

    __slots__ = (
        "_fetched",
        "_note",
        "_now",
        "_on_step",
        "_role",
        "_starting",
        "_steps",
        "clock",
        "evaluating",
        "has_counted",
        "has_proxy",
        "in_step",
        "is_open",
        "thread",
    )

    def __init__(self, clock: PhaseClock, steps: StepRecorder, on_step: Callable[[], None] | None) -> None:
        """Follow the loop of the calling thread; `on_step` is called once a step is over."""
        self.clock = clock
        self.is_open = True
        self.thread = get_ident()
        self.has_proxy = False
        self.has_counted = False
        self.in_step = False
        self.evaluating = False
        self._note, self._now = clock.note, clock.now
        self._steps = steps
        self._on_step = on_step
        self._role: Any = None
        self._fetched = False
        self._starting = False

    def listens(self) -> bool:
        """Whether what the calling thread does now counts."""
        return self.is_open and get_ident() == self.thread

    def epoch_begins(self) -> None:
        """The loader starts, up to its first batch."""
        self._starting = True
        self.clock.enter(Phase.LOADER_START)

    def loop_begins(self, role: Any) -> None:
        """The iteration over the loader begins."""
        role.loops += 1
        self._role = role

    def loop_begun(self, role: Any) -> None:
        """Its iterator exists, and where there are workers their first batch too."""
        self._end_start()

    def loop_closes(self, role: Any) -> None:
        """The iteration is over, and its workers are about to be shut down."""
        if role.workers:
            self.clock.enter(Phase.LOADER_START)

    def loop_ends(self, role: Any) -> None:
        """The workers are gone."""
        if role.workers:
            self.clock.leave(Phase.LOADER_START)

    def fetch(self, role: Any) -> None:
        """A batch is asked for: the first of a window ends the step before it."""
        self._fetched = True
        self._steps.fetch()
        if role.fresh:
            self._count_batch(role)

    def step_begins(self, **_: Any) -> None:
        """The window's batches are there."""
        self.in_step = True
        self.evaluating = False
        if not self._fetched:
            self._fetched_unseen()
        role = self._role
        if role is not None and role.fresh:
            self._count_batch(role)
        if self._starting:
            self._end_start()

    def optimizer_begins(self, **_: Any) -> None:
        """The optimizer is about to step, then the scheduler, and gradients are zeroed."""
        self._note((OPTIMIZER, self._now()))

    def step_ends(self, **_: Any) -> None:
        """The step is over, also where a scaler skipped the update. Without a proxy its time ends here."""
        self.in_step = False
        self._note((~OPTIMIZER, self._now()))
        self._steps.has_stepped = True
        if not self.has_proxy or not self._fetched:
            self._steps.fetch()
        self._fetched = self.has_counted = False
        if self._on_step is not None:
            self._on_step()

    def micro_batch(self) -> None:
        """A micro-batch that nobody saw fetched has gone backward."""
        self._steps.micro_batch()

    def _count_batch(self, role: Any) -> None:
        """Count the batch that was handed out last."""
        role.fresh, self.has_counted = False, True
        self._steps.micro_batch(*role.size)

    def _fetched_unseen(self) -> None:
        """Nobody saw the batches fetched (a resumed epoch has another loader): the gap was the wait for them."""
        self.clock.book(Phase.LOADER_START if self._starting else Phase.INPUT_WAIT)
        self._steps.fetch()

    def _end_start(self) -> None:
        if self._starting:
            self._starting = False
            self.clock.leave(Phase.LOADER_START)


class TimedForward(WatchedCall):
    """The call of the outermost module. In eval mode that is an evaluation, which is told of later."""

    __slots__ = ("_loop", "_note", "_now")

    def __init__(self, loop: TrainerLoop, module: Any, name: str) -> None:
        """Time the calls of `module` while `loop` is open: somebody may keep this for longer."""
        super().__init__(module, name)
        self._loop = loop
        self._note, self._now = loop.clock.note, loop.clock.now

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Call the module."""
        if not (self._module.training and self._loop.is_open):
            return self.call(*inputs, **options)
        self._note((FORWARD, self._now()))
        try:
            return self.call(*inputs, **options)
        finally:
            self._note((~FORWARD, self._now()))
