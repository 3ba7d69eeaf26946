"""What the Trainer's loop is doing, told from fetches, forwards and micro-batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Any

from traceml_core.core.phases import FORWARD, OPTIMIZER, Phase
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder


class TrainerLoop:
    """Listens to the proxy of the training loader, to the model, and to the callback.

    The Trainer fetches a whole accumulation window, then trains on it. Sizes wait in order of fetch until their
    micro-batch has gone backward. Between `step_begins` and `step_ends` the loop is `in_step`; it is `evaluating`
    from the first batch of an evaluation on.
    """

    def __init__(self, clock: PhaseClock, steps: StepRecorder, on_step: Callable[[], None] | None) -> None:
        """Follow the loop of the calling thread; `on_step` is called once a step is over."""
        self.clock = clock
        self.is_open = True
        self.thread = get_ident()
        self.has_proxy = False
        self.in_step = False
        self.evaluating = False
        self._steps = steps
        self._on_step = on_step
        self._sizes: deque[tuple[int | None, int | None]] = deque(maxlen=4096)
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
        """A batch is asked for: the step before it ends."""
        if role.fresh:
            role.fresh = False
            self._sizes.append(role.size)
        self._fetched = True
        self._steps.fetch()

    def step_begins(self) -> None:
        """The window's batches are there."""
        self.in_step = True
        self.evaluating = False
        role = self._role
        if role is not None and role.fresh:
            role.fresh = False
            self._sizes.append(role.size)
        if not self._fetched:
            self._fetched_unseen()
        if self._starting:
            self._end_start()

    def step_ends(self) -> None:
        """The optimizer, the scheduler and zeroing are done; without a proxy the step ends here."""
        self.in_step = False
        self.clock.leave(OPTIMIZER)
        self._steps.optimizer_step()
        if not self.has_proxy or not self._fetched:
            self._steps.fetch()
        self._fetched = False
        if self._on_step is not None:
            self._on_step()

    def micro_batch(self) -> None:
        """A micro-batch has gone backward."""
        samples, tokens = self._sizes.popleft() if self._sizes else (None, None)
        self._steps.micro_batch(samples, tokens)

    def forward_begins(self, module: Any) -> None:
        """The outermost module runs; in eval mode that is an evaluation, told of later."""
        if module.training and self.is_open:
            self.clock.enter(FORWARD)

    def forward_ends(self, module: Any) -> None:
        """The outermost module has run, or raised."""
        if module.training and self.is_open:
            self.clock.leave(FORWARD)

    def _fetched_unseen(self) -> None:
        """Nobody saw the batches fetched (a resumed epoch has another loader): the gap was the wait for them."""
        self.clock.book(Phase.LOADER_START if self._starting else Phase.INPUT_WAIT)
        self._steps.fetch()

    def _end_start(self) -> None:
        if self._starting:
            self._starting = False
            self.clock.leave(Phase.LOADER_START)
