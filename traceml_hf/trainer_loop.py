"""What the Trainer's loop is doing, told from fetches, forwards and micro-batches."""

from __future__ import annotations

from collections import deque
from threading import get_ident
from typing import Any

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder


class TrainerLoop:
    """Listens to the proxy of the training loader, to the model, and to the run.

    The Trainer fetches a whole accumulation window, then trains on it. Sizes wait in order of fetch until their
    micro-batch has gone backward.
    """

    def __init__(self, clock: PhaseClock, steps: StepRecorder) -> None:
        """Follow the loop of the calling thread."""
        self.clock = clock
        self.is_open = True
        self.thread = get_ident()
        self.has_proxy = False
        self._steps = steps
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
        self._keep_size()
        self._fetched = True
        self._steps.fetch()

    def step_begins(self) -> None:
        """The window's batches are there; where nobody saw them fetched, the gap before was the wait for them."""
        if not self._fetched:
            self.clock.book(Phase.LOADER_START if self._starting else Phase.INPUT_WAIT)
            self._steps.fetch()
        self._keep_size()
        self._end_start()

    def step_ends(self) -> None:
        """The next step's fetch has not been seen yet; without a proxy the step ends here."""
        if not self.has_proxy or not self._fetched:
            self._steps.fetch()
        self._fetched = False

    def micro_batch(self) -> None:
        """A micro-batch has gone backward."""
        samples, tokens = self._sizes.popleft() if self._sizes else (None, None)
        self._steps.micro_batch(samples, tokens)

    def forward_begins(self, module: Any, _: Any) -> None:
        """The outermost module runs; in eval mode that is an evaluation, told of later."""
        if module.training and self.is_open:
            self.clock.enter(Phase.FORWARD)

    def forward_ends(self, module: Any, *_: Any) -> None:
        """The outermost module has run."""
        if module.training and self.is_open:
            self.clock.leave(Phase.FORWARD)

    def _keep_size(self) -> None:
        """Queue the size of the batch that was handed out last."""
        role = self._role
        if role is not None and role.fresh:
            role.fresh = False
            self._sizes.append(role.size)

    def _end_start(self) -> None:
        if self._starting:
            self._starting = False
            self.clock.leave(Phase.LOADER_START)
