"""One `train`: its session, what its events mean, and how it ends."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from threading import get_ident
from typing import Any, ClassVar

import msgspec

from traceml_core.core.phases import Phase
from traceml_core.core.settings import Settings
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.session import CAUGHT, Session, open_session
from traceml_core.telemetry.facts import RunFacts
from traceml_hf.accelerate_facts import facts_of, identity_of, store_of
from traceml_hf.trainer_entry import trains_among_callers
from traceml_hf.trainer_loop import TrainerLoop
from traceml_hf.trainer_trackers import open_trackers, write_numbers, write_verdict
from traceml_hf.trainer_watch import TrainerWatch

logger = get_error_logger("Trainer")


class TrainerRun:
    """An open run of one trainer. Nothing of it outlives its end, but a card that waits for a traceback before it."""

    _open: ClassVar[list[TrainerRun]] = []
    _left: ClassVar[list[Session]] = []

    @classmethod
    def has_inside(cls, trainer: Any) -> bool:
        """Whether `trainer` trains inside the run of another one: in one of its callbacks, say."""
        return any(run.trainer is not trainer and trains_among_callers(run.trainer) for run in cls._open)

    @classmethod
    def is_elsewhere(cls) -> bool:
        """Whether another thread of this process is in a run: its clock is that thread's alone."""
        alive = {thread.ident for thread in threading.enumerate()} - {get_ident()}
        return any(run._loop.thread in alive for run in cls._open)

    @classmethod
    def begin(cls, trainer: Any, settings: Settings, started_ns: int, on_closed: Callable[[], None]) -> TrainerRun:
        """Open a run, after closing those that an error left and somebody caught.

        A batch that did not fit is such an error: the run that goes on with a smaller one has the whole report again.
        """
        for run in list(cls._open):
            if run._loop.thread == get_ident():
                run._abandon()
        if cls._left and trainer.args.auto_find_batch_size and settings.report is None:
            settings = msgspec.structs.replace(settings, report="full")
        while cls._left:
            cls._left.pop().close()
        return cls(trainer, settings, started_ns, on_closed)

    def __init__(self, trainer: Any, settings: Settings, started_ns: int, on_closed: Callable[[], None]) -> None:
        """Open the session and watch."""
        self.trainer = trainer
        self._on_closed = on_closed
        self._settings = settings
        facts, accelerator = facts_of_trainer(trainer), trainer.accelerator
        self._session = open_session(
            settings, facts, identity_of(accelerator), started_ns=started_ns, store=store_of(accelerator)
        )
        self._clock, self._steps = self._session.clock, self._session.steps
        on_step = self._write_live if settings.log_every_n_steps else None
        self._loop = TrainerLoop(self._clock, self._steps, on_step)
        self._watch = TrainerWatch(self._session, self._loop)
        self._session.on_end = self._let_go
        self._open.append(self)
        if not self._steps.steps_done:  # else this run is a part of one that has done steps
            self._steps.start_at(trainer.state.global_step)
        if self._session.enabled:
            with fail_open(logger, "watching the trainer"):
                self._watch.put_on(trainer, facts.unmeasured, self._events(), self._close)
        # Where an evaluation comes first, it is told of at its end only: what lies before this moment is no part of it.
        self._clock.book(self._clock.owner)

    def _events(self) -> dict[str, Callable[..., None]]:
        """What each of the trainer's events means. Most are told once it is over what they tell of."""
        return {
            "on_epoch_begin": self._epoch_begins,
            "on_step_begin": self._loop.step_begins,
            "on_pre_optimizer_step": self._loop.optimizer_begins,
            "on_step_end": self._loop.step_ends,
            "on_log": self._logged,
            "on_prediction_step": self._predicted,
            "on_evaluate": self._evaluated,
            "on_predict": self._evaluated,
            "on_save": self._saved,
            "on_train_end": self._train_ends,
        }

    def _epoch_begins(self, **_: Any) -> None:
        """The start-up is over; up to the first batch, the loader starts."""
        self._clock.leave(Phase.STARTUP)
        self._loop.epoch_begins()

    def _logged(self, logs: Any = None, **_: Any) -> None:
        """What was just done was logging, or the end of an evaluation, which logs its metrics.

        What a subclass logs inside a step, or a callback in its own time, follows on something else.
        """
        if "train_runtime" in (logs or {}):  # the summary of the whole training
            self._clock.book(Phase.TEARDOWN)
            self._steps.finish()
            self._clock.enter(Phase.TEARDOWN)
        elif self._loop.evaluating:
            self._clock.book(Phase.VALIDATION)
        elif not self._loop.in_step and self._clock.owner is Phase.UNATTRIBUTED:
            self._clock.book(Phase.LOGGING)

    def _predicted(self, **_: Any) -> None:
        """What was just done was validation."""
        self._loop.evaluating = True
        self._clock.book(Phase.VALIDATION)

    def _evaluated(self, **_: Any) -> None:
        """The validation is over."""
        self._clock.book(Phase.VALIDATION)
        self._loop.evaluating = False

    def _saved(self, **_: Any) -> None:
        """What was just done was a checkpoint."""
        self._clock.book(Phase.CHECKPOINT)

    def _train_ends(self, **_: Any) -> None:
        """Write the results to the trackers while they are open, which ends the measuring.

        Where there are none, what the other callbacks do at the end is measured too. The card is printed after the
        last of them, so that the progress bar is closed.
        """
        trackers = open_trackers(self.trainer.callback_handler.callbacks) if self._settings.trackers else []
        if trackers:
            step = self.trainer.state.global_step
            verdict = self._session.finish("completed")
            if verdict is not None:
                write_verdict(trackers, verdict, step)

    def leave(self, error: BaseException) -> None:
        """An error leaves the training: end the measuring. The card follows its traceback, or precedes the next run."""
        interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
        self._left.append(self._session)
        self._session.finish("interrupted" if interrupted else "failed", error)
        self._let_go()

    def _close(self) -> None:
        self._session.close()
        self._let_go()
        self._on_closed()

    def _abandon(self) -> None:
        """The run was left by an error that somebody caught, and nobody saw it."""
        self._session.close("failed", CAUGHT)
        self._let_go()
        self._on_closed()

    def _let_go(self) -> None:
        """Take every stand-in away, and hold the trainer no longer; whoever ends the run calls this."""
        self._loop.is_open = False
        self._session.on_end = None
        if self in self._open:
            self._open.remove(self)
        self._watch.take_off()

    def _write_live(self) -> None:
        if self.trainer.state.global_step % (self._settings.log_every_n_steps or 1):
            return
        verdict = self._session.live_verdict()
        if verdict is not None and self._settings.trackers:
            self._clock.enter(Phase.LOGGING)
            trackers = open_trackers(self.trainer.callback_handler.callbacks)
            write_numbers(trackers, verdict, self.trainer.state.global_step)
            self._clock.leave(Phase.LOGGING)


def facts_of_trainer(trainer: Any) -> RunFacts:
    """The facts that a trainer knows when its loop begins."""
    facts = facts_of(trainer.accelerator)
    return msgspec.structs.replace(
        facts,
        framework="hf_trainer",
        versions={**facts.versions, "transformers": str(sys.modules["transformers"].__version__)},
        batch_size=trainer.args.train_batch_size,
        accumulation=trainer.args.gradient_accumulation_steps,
    )
