"""The callback for the Hugging Face Trainer: its events, each passed on to the run that is open."""

from __future__ import annotations

import sys
from time import perf_counter_ns
from typing import Any

from traceml_core.core.settings import SettingsArguments, resolve_settings
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.lifecycle import say
from traceml_hf.trainer_run import TrainerRun

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as error:
    if error.name != "transformers":
        raise
    raise ImportError("TraceMLCallback needs transformers: pip install 'traceml-callbacks[hf]'") from error

logger = get_error_logger("Trainer")


class TraceMLCallback(TrainerCallback):
    """Ends every `train` with an account of its time and memory, a diagnosis, and what to do next.

    One run a `train`, and one a trial of a hyper-parameter search. Evaluate and predict outside it open none. The
    trainer is found when training begins; `attach` names it explicitly. Nothing of the callback gets into checkpoints,
    `trainer_state.json` or `log_history`, and it survives pickle and deepcopy. Settings: see `docs/settings.md`.

    Raises:
        ValueError: a setting is unknown or not accepted; the message names it and what is accepted.
    """

    def __init__(self, **settings: Unpack[SettingsArguments]) -> None:
        """Settle the settings; nothing else happens before `train`."""
        self._settings = resolve_settings(**settings)
        self._trainer: Any = None
        self._run: TrainerRun | None = None
        self._begun_ns: int | None = None

    def attach(self, trainer: Any) -> TraceMLCallback:
        """Add this callback to `trainer`, if it is not there yet, and watch that one. Returns the callback."""
        if not any(one is self for one in trainer.callback_handler.callbacks):
            trainer.add_callback(self)
        self._trainer = trainer
        self._await_training(trainer)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: the settings, and no run."""
        return {**self.__dict__, "_run": None, "_trainer": None, "_begun_ns": None}

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The trainer has been built around this callback."""
        trainer = _calling("callback_handler")
        if trainer is not None:
            self._await_training(trainer)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open a run; one that is still open was left by an exception that somebody caught."""
        begun_ns = self._begun_ns or perf_counter_ns()
        self._begun_ns = None
        if not self._settings.enabled:
            return
        with fail_open(logger, "opening the run"):
            trainer = _calling("_inner_training_loop") or self._trainer
            self._run = None
            if trainer is None:
                say("the trainer was not found, nothing is recorded; say TraceMLCallback().attach(trainer)")
            elif self._is_second(trainer):
                say("a second TraceMLCallback in one trainer does nothing")
            else:
                TrainerRun.abandon_left(trainer)
                self._run = TrainerRun(trainer, self, self._settings, begun_ns, self._run_closed)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The loader starts."""
        if self._run is not None:
            self._run.epoch_begins()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A window's batches are there."""
        if self._run is not None:
            self._run.step_begins()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The optimizer is about to step."""
        if self._run is not None:
            self._run.optimizer_begins()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The optimizer has stepped."""
        if self._run is not None:
            self._run.optimizer_ends()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step is over, also where a scaler skipped the update."""
        if self._run is not None:
            self._run.step_ends()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Logging has just begun; gathering what is logged lies behind."""
        if self._run is not None:
            self._run.logged(is_last="train_runtime" in (logs or {}))

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A batch has been evaluated."""
        if self._run is not None:
            self._run.predicted()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An evaluation has ended."""
        if self._run is not None:
            self._run.evaluated()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A checkpoint has been written."""
        if self._run is not None:
            self._run.saved()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Training is over; trackers are still open, and the report follows once the progress bar is closed."""
        if self._run is not None:
            self._run.train_ends()

    def _run_closed(self) -> None:
        """The run has been closed; the next `train` opens its own."""
        if self._run is not None:
            trainer, self._run = self._run.trainer, None
            self._await_training(trainer)

    def _await_training(self, trainer: Any) -> None:
        """Learn when `train` begins: `free_memory` is the first thing that its loop calls, well before any event."""
        accelerator = getattr(trainer, "accelerator", None)
        if self._settings.enabled and accelerator is not None and "free_memory" not in vars(accelerator):
            accelerator.free_memory = TrainingBegins(accelerator, self)

    def training_begins(self) -> None:
        """Note the time."""
        if self._run is None:
            self._begun_ns = perf_counter_ns()

    def _is_second(self, trainer: Any) -> bool:
        ours = [one for one in list.__iter__(trainer.callback_handler.callbacks) if isinstance(one, TraceMLCallback)]
        return bool(ours) and ours[0] is not self


class TrainingBegins:
    """Stands in for an accelerator's `free_memory` once: it notes the time and is gone."""

    def __init__(self, accelerator: Any, callback: TraceMLCallback) -> None:
        self._accelerator = accelerator
        self._callback = callback

    def __call__(self, *objects: Any) -> Any:
        """Note the time, take itself away, and free the memory."""
        vars(self._accelerator).pop("free_memory", None)
        self._callback.training_begins()
        return self._accelerator.free_memory(*objects)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is the accelerator's own method."""
        return getattr, (self._accelerator, "free_memory")


def _calling(attribute: str) -> Any:
    """The trainer among the callers: the nearest `self` that has `attribute` and a callback handler."""
    frame = sys._getframe(2)
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if hasattr(candidate, "callback_handler") and hasattr(candidate, attribute):
            return candidate
        frame = frame.f_back  # type: ignore[assignment]
    return None
