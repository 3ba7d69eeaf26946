"""The callback for the Hugging Face Trainer: it opens a run where one begins; the run hears the rest by itself."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from transformers import TrainerCallback

from traceml_core.core.settings import SettingsArguments, resolve_settings
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.console import say
from traceml_hf.trainer_entry import await_training, trainer_among_callers
from traceml_hf.trainer_run import TrainerRun

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

logger = get_error_logger("Trainer")


class TraceMLCallback(TrainerCallback):
    """Ends every `train` with an account of its time and memory, a diagnosis, and what to do next.

    One run a `train`, and one a trial of a hyper-parameter search. Evaluate and predict outside it open none. The
    trainer is found when training begins; `attach` names it explicitly. Nothing of the callback gets into checkpoints,
    `trainer_state.json` or `log_history`, and it survives pickle and deepcopy. Settings: see `docs/settings.md`.

    Raises:
        ValueError: a setting is unknown or not accepted; the message names it and what is accepted.
    """

    gives_way = False
    """Whether a second callback of ours in the same trainer goes before this one."""

    def __init__(self, **settings: Unpack[SettingsArguments]) -> None:
        """Settle the settings; nothing else happens before `train`."""
        self._settings = resolve_settings(**settings)
        self._attached: Callable[[], Any] = _nothing
        self._run: TrainerRun | None = None
        self._begun_ns: int | None = None

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """What every object has; `trainer.add_callback` reads it, and in no other way shows that it was called."""
        adding = sys._getframe(1)
        if adding.f_code.co_name == "add_callback" and adding.f_back is not None:
            self._await_training(adding.f_back.f_locals.get("self"))
        return type(self)

    def attach(self, trainer: Any) -> TraceMLCallback:
        """Add this callback to `trainer`, if it is not there yet, and watch that one. Returns the callback."""
        if not any(one is self for one in trainer.callback_handler.callbacks):
            trainer.add_callback(self)
        self._attached = weakref.ref(trainer)
        self._await_training(trainer)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: the settings, and no run."""
        return {**self.__dict__, "_run": None, "_attached": _nothing, "_begun_ns": None}

    def training_begins(self) -> None:
        """A `train` of this callback's trainer begins."""
        if self._run is None:
            self._begun_ns = perf_counter_ns()

    def loop_begins(self) -> None:
        """Its loop begins: for the first time, or with a smaller batch."""
        if self._begun_ns is None:
            self.training_begins()

    def training_left(self, trainer: Any, error: BaseException) -> None:
        """Its loop has raised."""
        self._begun_ns = None
        run = self._run
        if run is not None and run.trainer is trainer:
            self._run_closed()
            run.leave(error)

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The trainer has been built around this callback."""
        self._await_training(trainer_among_callers())

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open a run."""
        begun_ns = self._begun_ns or perf_counter_ns()
        self._begun_ns = None
        if not self._settings.enabled:
            return
        with fail_open(logger, "opening the run"):
            trainer = trainer_among_callers() or self._attached()
            if trainer is None:
                _say(state, "the trainer was not found, nothing is recorded; say TraceMLCallback().attach(trainer)")
            elif _first_of_ours(trainer) is not self:
                if not self.gives_way:
                    _say(state, "a second TraceMLCallback in one trainer does nothing")
            elif TrainerRun.has_inside(trainer):
                _say(state, "a training inside another one is told as a part of that")
            elif TrainerRun.is_elsewhere():
                _say(state, "a training beside one in another thread is not recorded")
            else:
                self._await_training(trainer)
                self._run_closed()
                self._run = TrainerRun.begin(trainer, self._settings, begun_ns, self._run_closed)

    def _run_closed(self) -> None:
        """The run has been closed; the next `train` opens its own."""
        self._run = None

    def _await_training(self, trainer: Any) -> None:
        """Learn when `trainer` begins to train, if it is one."""
        if self._settings.enabled and hasattr(trainer, "callback_handler"):
            with fail_open(logger, "waiting for training"):
                await_training(trainer, _first_of_ours)


def _first_of_ours(trainer: Any) -> TraceMLCallback | None:
    """The callback of this trainer that counts, where it has several."""
    callbacks = list.__iter__(trainer.callback_handler.callbacks)
    ours = [one for one in callbacks if isinstance(one, TraceMLCallback)]
    return next((one for one in ours if not one.gives_way), ours[0] if ours else None)


def _say(state: Any, message: str) -> None:
    """Say a line, on one rank."""
    if state.is_world_process_zero:
        say(message)


def _nothing() -> None:
    """What stands for the trainer where none was attached."""
