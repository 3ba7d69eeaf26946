"""What an Accelerate loop is doing, told from its fetches, forwards, backwards and optimizer steps alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from threading import get_ident
from typing import Any, TypeVar, cast

from traceml_core.core.phases import BACKWARD, FORWARD, OPTIMIZER, Phase
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_hf.loader_role import LoaderRole, joint_size

Method = TypeVar("Method", bound=Callable[..., None])
_logger = get_error_logger("AccelerateCallback")


def _event(method: Method) -> Method:
    """A hook's entry: heard on the training thread while the run is open, and never raising into training."""

    @functools.wraps(method)
    def event(self: StepTracker, *args: Any) -> None:
        if not self.is_open or get_ident() != self.thread:
            return
        try:
            method(self, *args)
        except Exception:
            with fail_open(_logger, f"following the loop ({method.__name__})"):
                raise

    return cast(Method, event)


class StepTracker:
    """Turns the events of a hand-written Accelerate loop into phases and steps.

    A step closes at the first fetch after an optimizer stepped, whichever order several optimizers step in: a fetch
    from a second loader in the middle of a window (a GAN's noise) closes nothing. The prepared loader reads one batch
    ahead, so a fetch waits for the batch after the one that it hands out; that wait lies, as time does, in the step
    that pays for it.

    Nothing in a loop says 'this is validation', so the tracker asks for evidence: a loader whose last batch was used
    without gradients or in eval mode and led to no backward; or a new loader, fetched with every model in eval mode,
    after all training so far was in training mode. A loader that led to a backward never counts as validation.

    Events of other threads than the one that built it are not heard. Plain sailing, one loader known to train, takes a
    short way through each event, since each costs training time; everything else takes the long one.
    """

    __slots__ = (
        "_backward_seen",
        "_fed_by_loader",
        "_feeding",
        "_forwarded",
        "_grad_enabled",
        "_inside",
        "_looping",
        "_models",
        "_note",
        "_now",
        "_on_step",
        "_on_training_loader",
        "_on_unmeasured",
        "_optimizers",
        "_stepped",
        "_steps",
        "_trained",
        "_trained_in_eval_mode",
        "_validating",
        "_window",
        "clock",
        "forward_in_eval_mode",
        "is_open",
        "plain",
        "thread",
    )

    def __init__(
        self,
        clock: PhaseClock,
        steps: StepRecorder,
        *,
        models: Collection[Any],
        optimizers: Collection[Any],
        grad_enabled: Callable[[], bool],
        on_training_loader: Callable[[LoaderRole], None],
        on_unmeasured: Callable[[str], None],
        on_step: Callable[[], None] | None = None,
    ) -> None:
        """Track with `clock` and `steps`. `models` and `optimizers` are the prepared ones; both may grow later.

        `on_training_loader` hears of each loader once it is known to train, `on_unmeasured` of the key of each phase
        that this loop turns out to do out of sight.
        """
        self.clock = clock
        self.is_open = True
        self.thread = get_ident()
        self._note, self._now = clock.note, clock.now
        self._steps = steps
        self._models = models
        self._optimizers = optimizers
        self._grad_enabled = grad_enabled
        self._on_training_loader = on_training_loader
        self._on_unmeasured = on_unmeasured
        self._on_step = on_step
        self._looping = False
        self._validating: LoaderRole | None = None
        self._feeding: list[LoaderRole] = []
        self._forwarded = False
        self._window: set[LoaderRole] = set()
        self._stepped: set[int] = set()
        self._inside: int | None = None
        self.plain: LoaderRole | None = None
        self._fed_by_loader = False
        self._trained = False
        self._trained_in_eval_mode = False
        self.forward_in_eval_mode = False
        self._backward_seen = False

    def listens(self) -> bool:
        """Whether what the calling thread does now counts."""
        return self.is_open and get_ident() == self.thread

    def close(self) -> None:
        """Hear nothing from now on."""
        self.is_open = False
        self.plain = None

    @_event
    def loop_begins(self, role: LoaderRole) -> None:
        """An iteration over the loader begins: its workers start, if it has any."""
        role.loops += 1
        role.fresh = False
        self.plain = None
        self.fetch(role)
        if self._validating is None:
            self.clock.enter(Phase.LOADER_START)

    @_event
    def loop_begun(self, role: LoaderRole) -> None:
        """The loader's iterator exists, and where there are workers the first batch too."""
        self.clock.leave(Phase.LOADER_START)

    @_event
    def loop_closes(self, role: LoaderRole) -> None:
        """The newest iteration over the loader is over; its workers, if it has any, are about to be shut down."""
        if role.workers and self._validating is None:
            self.clock.enter(Phase.LOADER_START)

    @_event
    def loop_ends(self, role: LoaderRole) -> None:
        """The newest iteration over the loader is over, exhausted or broken off, and so are its workers."""
        self.clock.leave(Phase.LOADER_START)
        if self._validating is role:
            self._leave_validation()
        elif role.trains and self._stepped:
            self._looping = self._fed_by_loader = False
            self.plain = None
            self._window.clear()
            self._stepped.clear()
            self._steps.finish()
        if role in self._feeding:
            self._feeding.remove(role)

    def fetch(self, role: LoaderRole) -> None:
        """The loop asks the loader for a batch; whoever calls this has made sure that `listens`."""
        if role is not self.plain or self._inside is not None:
            self._fetch(role)
        elif self._stepped:
            self._stepped.clear()
            self._steps.fetch()
            if self._on_step is not None:
                self._on_step()
        else:
            self._steps.fetch()  # the window goes on

    def backward_call(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        """`accelerator.backward`, followed."""

        def call(*args: Any, **kwargs: Any) -> Any:
            role = self.plain
            plain = role is not None and not self.forward_in_eval_mode and get_ident() == self.thread
            if plain:
                self._note((BACKWARD, self._now()))
            else:
                self._backward_begins()
            try:
                return backward(*args, **kwargs)
            finally:
                if plain and role is not None and role is self.plain:
                    self._note((~BACKWARD, self._now()))
                    if role.fresh:
                        role.fresh = False
                        self._steps.micro_batch(*role.size)
                else:
                    self._backward_ends()

        return call

    def optimizer_begins(self, optimizer: Any, args: Any = None, kwargs: Any = None) -> None:
        """A prepared optimizer begins to step."""
        if self.plain is not None and get_ident() == self.thread:
            self._inside = OPTIMIZER
            self._note((OPTIMIZER, self._now()))
        else:
            self._optimizer_begins(optimizer)

    def optimizer_ends(self, optimizer: Any, args: Any = None, kwargs: Any = None) -> None:
        """A prepared optimizer has stepped, or its scaler skipped the update."""
        if self.plain is not None and self._inside == OPTIMIZER:
            self._inside = None
            self._note((~OPTIMIZER, self._now()))
            self._stepped.add(id(optimizer))
            self._steps.has_stepped = True
        else:
            self._optimizer_ends(optimizer)

    @_event
    def _fetch(self, role: LoaderRole) -> None:
        self.plain = None
        if self._inside is not None:
            self.clock.leave(self._inside)
            self._inside = None
        if not role.trains and self._is_validation(role):
            self._join_feeding(role)
            if self._validating is None:
                self.clock.enter(Phase.VALIDATION)
            self._validating = role
            return
        self._leave_validation()
        if not self._stepped:
            self._begin_loop()
        elif role in self._window or len(self._stepped) >= len(self._optimizers):
            self._close_step()
        self._window.add(role)
        self._join_feeding(role)

    @_event
    def forward_begins(self, module: Any) -> None:
        """A prepared model is called; one that trains in plain sailing need not tell."""
        inference = not (module.training and self._grad_enabled())
        for role in self._feeding:
            role.inferred = inference
        self._forwarded = True
        self.forward_in_eval_mode = not module.training
        if not inference or (self._validating is not None and not self._validating.evaluates and self._grad_enabled()):
            self._leave_validation()
        if not inference and not self._fed_by_loader:
            self._begin_step_without_loader()
        between_loops = not self._looping and self._validating is None and self._trained
        self._inside = Phase.VALIDATION if between_loops and not self._grad_enabled() else FORWARD
        self.clock.enter(self._inside)

    @_event
    def forward_ends(self) -> None:
        """A prepared model has returned, or raised."""
        self._inside = None
        self.clock.leave(FORWARD)
        if self._validating is None:
            self.clock.leave(Phase.VALIDATION)

    @_event
    def _backward_begins(self) -> None:
        self._backward_seen = True
        self._note_training()
        self.clock.enter(BACKWARD)

    @_event
    def _backward_ends(self) -> None:
        self.clock.leave(BACKWARD)
        if not self._fed_by_loader:
            self._steps.micro_batch()
            return
        fresh = [role for role in self._feeding if role.fresh]
        if fresh:
            self._steps.micro_batch(*joint_size(fresh))

    @_event
    def _optimizer_begins(self, optimizer: Any) -> None:
        if not self._fed_by_loader and id(optimizer) in self._stepped:
            self._close_step()
        self._inside = OPTIMIZER
        self.clock.enter(OPTIMIZER)

    @_event
    def _optimizer_ends(self, optimizer: Any) -> None:
        self._inside = None
        self.clock.leave(OPTIMIZER)
        self._begin_loop()
        if not self._backward_seen:
            self._backward_seen = True
            self._note_training()
            self._on_unmeasured(Phase.BACKWARD.key)
        if not self._fed_by_loader and not self._feeding and not self._trained:
            self._on_unmeasured(Phase.INPUT_WAIT.key)
        self._trained = True
        self._stepped.add(id(optimizer))
        self._steps.has_stepped = True
        if self._feeding == list(self._window) and len(self._feeding) == 1 and self._feeding[0].trains:
            self.plain = self._feeding[0]

    def _is_validation(self, role: LoaderRole) -> bool:
        if role.inferred:
            role.evaluates = True
        return role.evaluates or (
            self._trained and not self._trained_in_eval_mode and not any(model.training for model in self._models)
        )

    def _join_feeding(self, role: LoaderRole) -> None:
        if self._forwarded:
            self._forwarded = False
            self._feeding.clear()
        if role not in self._feeding:
            self._feeding.append(role)
        role.inferred = False

    def _leave_validation(self) -> None:
        if self._validating is not None:
            self._validating = None
            self.clock.leave(Phase.VALIDATION)

    def _note_training(self) -> None:
        self._leave_validation()
        for role in self._feeding:
            self._fed_by_loader = True
            if not role.trains:
                role.trains = True
                role.evaluates = role.inferred = False
                self._on_training_loader(role)
        if self.forward_in_eval_mode:
            self._trained_in_eval_mode = True

    def _begin_loop(self) -> None:
        if not self._looping:
            self._looping = True
            self.clock.leave(Phase.STARTUP)
            self._steps.fetch()

    def _begin_step_without_loader(self) -> None:
        if self._stepped and len(self._stepped) >= len(self._optimizers):
            self._close_step()
        else:
            self._begin_loop()

    def _close_step(self) -> None:
        self._window.clear()
        self._stepped.clear()
        self._steps.fetch()
        if self._on_step is not None:
            self._on_step()
