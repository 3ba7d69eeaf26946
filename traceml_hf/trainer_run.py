"""One `train`: its session, what its events mean, and what stands in for the trainer's own things while it is open."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from traceml_core.core.phases import Phase
from traceml_core.core.settings import Settings
from traceml_core.instrumentation.gradient_arrival import GradientArrival
from traceml_core.instrumentation.loader_facts import loader_facts
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.session import open_session
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import RunError, Verdict
from traceml_hf.accelerate_facts import facts_of, identity_of, store_of
from traceml_hf.accelerate_loaders import install, remove
from traceml_hf.timed_callbacks import TimedCallbacks
from traceml_hf.trainer_loop import TrainerLoop
from traceml_hf.trainer_trackers import write_results

logger = get_error_logger("Trainer")
CAUGHT = RunError("unknown", "training was left by an exception that was caught, and began again")


class TrainerRun:
    """An open run of one trainer. Nothing of it outlives its end."""

    _open: ClassVar[list[TrainerRun]] = []

    @classmethod
    def abandon_left(cls, trainer: Any) -> None:
        """Close the runs whose `train` was left by an exception that somebody caught, before `trainer` begins its own.

        A run whose `train` is still among the callers goes on: `trainer` trains inside it.
        """
        for run in list(cls._open):
            if run.trainer is trainer or not _is_among_callers(run.trainer):
                run.abandon()

    def __init__(
        self, trainer: Any, ours: Any, settings: Settings, started_ns: int, on_closed: Callable[[], None]
    ) -> None:
        """Open the session and put the stand-ins in. `ours` is the callback among the trainer's that is the run's."""
        self.trainer = trainer
        self._ours = ours
        self._on_closed = on_closed
        self._settings = settings
        accelerator = trainer.accelerator
        self._session = open_session(
            settings, _facts(trainer), identity_of(accelerator), started_ns=started_ns, store=store_of(accelerator)
        )
        self._clock, self._steps = self._session.clock, self._session.steps
        self._loop = TrainerLoop(self._clock, self._steps)
        self._undo: list[Callable[[], object]] = []
        self._arrival: GradientArrival | None = None
        self._evaluating = False
        self._finished = False
        self._session.on_end = self.put_back
        self._open.append(self)
        self._steps.start_at(trainer.state.global_step)
        if self._session.enabled:
            with fail_open(logger, "watching the trainer"):
                self._watch()

    def epoch_begins(self) -> None:
        """The start-up is over; up to the first batch, the loader starts."""
        self._clock.leave(Phase.STARTUP)
        self._loop.epoch_begins()

    def step_begins(self) -> None:
        """Where no proxy saw the fetch (a resumed epoch has another loader), the gap was the wait for data."""
        self._loop.step_begins()

    def optimizer_begins(self) -> None:
        """The gradients are ready."""
        self._clock.enter(Phase.OPTIMIZER)

    def optimizer_ends(self) -> None:
        """The parameters are updated; the scheduler and zeroing follow."""
        self._clock.leave(Phase.OPTIMIZER)

    def step_ends(self) -> None:
        """Since the optimizer's step the scheduler stepped and gradients were zeroed."""
        self._clock.book(Phase.OPTIMIZER)
        self._steps.optimizer_step()
        self._loop.step_ends()
        every = self._settings.log_every_n_steps
        if every is not None and self.trainer.state.global_step % every == 0:
            self._write(self._session.live_verdict())

    def logged(self, is_last: bool) -> None:
        """What was just done was logging, or the end of an evaluation, which logs its metrics."""
        self._clock.book(Phase.VALIDATION if self._evaluating else Phase.LOGGING)
        if is_last:
            self._steps.finish()
            self._clock.enter(Phase.TEARDOWN)

    def predicted(self) -> None:
        """What was just done was validation."""
        self._evaluating = True
        self._clock.book(Phase.VALIDATION)

    def evaluated(self) -> None:
        """The validation is over."""
        self._clock.book(Phase.VALIDATION)
        self._evaluating = False

    def saved(self) -> None:
        """What was just done was a checkpoint."""
        self._clock.book(Phase.CHECKPOINT)

    def train_ends(self) -> None:
        """End the measuring, and write the results to the trackers while they are open."""
        self._finished = True
        self._write(self._session.finish("completed"))

    def callbacks_done(self) -> None:
        """Every callback has heard of the event; after the last one of all, the card is printed."""
        if self._finished:
            self._session.close()
            self._on_closed()

    def abandon(self) -> None:
        """The run was left by an exception that somebody caught: it failed."""
        self._session.close("failed", CAUGHT)
        self.put_back()

    def put_back(self) -> None:
        """Take every stand-in away."""
        self._loop.is_open = False
        if self in self._open:
            self._open.remove(self)
        while self._undo:
            with fail_open(logger, "putting the trainer's own things back"):
                self._undo.pop()()

    def _watch(self) -> None:
        trainer = self.trainer
        handler = trainer.callback_handler
        timed = TimedCallbacks(handler.callbacks, self._ours, self._clock, self.callbacks_done)
        handler.callbacks = timed
        self._undo.append(lambda: _restore_callbacks(handler, timed))
        loader = handler.train_dataloader
        role = install(loader, self._loop)
        if role is not None:
            self._loop.has_proxy = True
            self._undo.append(lambda: remove(loader))
        self._session.describe(loader=loader_facts(loader)["loader"])
        if trainer.args.world_size > 1:
            self._arrival = GradientArrival.attach(trainer.model, self._steps.gradients_arrived)
            if self._arrival is not None:
                self._undo.append(self._arrival.detach)
                others = [key for key in _facts(trainer).unmeasured if key != Phase.GRAD_SYNC.key]
                self._session.describe(unmeasured=tuple(others))
        self._replace(trainer.accelerator, "backward", self._backward)
        self._replace(
            trainer.accelerator, "clip_grad_norm_", functools.partial(_in_phase, self._clock, Phase.OPTIMIZER)
        )
        model = trainer.model_wrapped
        for handle in (
            model.register_forward_pre_hook(self._loop.forward_begins),
            model.register_forward_hook(self._loop.forward_ends),
        ):
            self._undo.append(handle.remove)

    def _replace(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Put `make(method)` on an instance, until the run ends; one that somebody else put there is kept inside."""
        had, before = name in vars(owner), getattr(owner, name)
        setattr(owner, name, make(before))
        ours = vars(owner)[name]

        def undo() -> None:
            if vars(owner).get(name) is ours:
                if had:
                    setattr(owner, name, before)
                else:
                    delattr(owner, name)

        self._undo.append(undo)

    def _backward(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        clock, loop, arrival = self._clock, self._loop, self._arrival

        def timed(*arguments: Any, **options: Any) -> Any:
            clock.enter(Phase.BACKWARD)
            try:
                return backward(*arguments, **options)
            finally:
                arrived_ns = None if arrival is None else arrival.take()
                if arrived_ns is not None:
                    clock.book(Phase.GRAD_SYNC, arrived_ns)
                clock.leave(Phase.BACKWARD)
                loop.micro_batch()

        return timed

    def _write(self, verdict: Verdict | None) -> None:
        if verdict is not None and self._settings.trackers:
            with fail_open(logger, "writing to the trackers"):
                callbacks = list(list.__iter__(self.trainer.callback_handler.callbacks))
                write_results(callbacks, verdict, self.trainer.state.global_step)


def _is_among_callers(trainer: Any) -> bool:
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "_inner_training_loop" and frame.f_locals.get("self") is trainer:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _facts(trainer: Any) -> RunFacts:
    arguments = trainer.args
    facts = facts_of(trainer.accelerator)
    version = str(sys.modules["transformers"].__version__)
    return msgspec.structs.replace(
        facts,
        framework="hf_trainer",
        versions={**facts.versions, "transformers": version},
        batch_size=arguments.train_batch_size,
        accumulation=arguments.gradient_accumulation_steps,
    )


def _in_phase(clock: Any, phase: Phase, method: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        clock.enter(phase)
        try:
            return method(*arguments, **options)
        finally:
            clock.leave(phase)

    return timed


def _restore_callbacks(handler: Any, timed: TimedCallbacks) -> None:
    """Give the handler a plain list with whatever is in ours now: callbacks may have come and gone."""
    if handler.callbacks is timed:
        handler.callbacks = list(list.__iter__(timed))
