"""The callback: Lightning's hooks, each passed on to the run that is open."""

from __future__ import annotations

import sys
from time import perf_counter_ns
from typing import Any

from traceml_core.core.phases import Phase
from traceml_core.core.settings import SettingsArguments, resolve_settings
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.console import say
from traceml_lightning.framework import lightning_module
from traceml_lightning.training_run import TrainingRun

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

logger = get_error_logger("Lightning")
_Callback: Any = lightning_module().Callback


class TraceMLCallback(_Callback):  # type: ignore[misc]
    """Ends every `fit` with an account of its time and memory, a diagnosis, and what to do next.

    One run a `fit`. Validate, test and predict outside it open none, nor do the tuner's trials. The callback keeps
    nothing in checkpoints and survives pickle and deepcopy. Settings: see `docs/settings.md`.

    Raises:
        ValueError: a setting is unknown or not accepted; the message names it and what is accepted.
    """

    gives_way = False
    """Whether a second callback of ours in the same trainer goes before this one."""

    def __init__(self, **settings: Unpack[SettingsArguments]) -> None:
        """Settle the settings; nothing else happens before `fit`."""
        self._settings = resolve_settings(**settings)
        self._run: TrainingRun | None = None
        self._outer: TrainingRun | None = None
        self._inner: Any = None
        self._first_seen_ns: int | None = None
        self._log: Any = None

    @property
    def log(self) -> Any:
        """The module's `log`, which Lightning hands to every callback when a run begins."""
        return self._log

    @log.setter
    def log(self, value: Any) -> None:
        """Lightning's first sign of a run, before loggers are made and data is prepared: the wall time begins."""
        self._log = value
        self._first_seen_ns = perf_counter_ns()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: the settings, and no run."""
        return {**self.__dict__, "_run": None, "_outer": None, "_inner": None}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Open a run, if this is a `fit` that is to be recorded."""
        if stage != "fit" or not self._settings.enabled or _is_tuning(trainer):
            return
        if _first_of_ours(trainer) is not self:
            if not self.gives_way:
                say("a second TraceMLCallback in one trainer does nothing")
            return
        with fail_open(logger, "opening the run"):
            if self._is_inside_another(trainer):
                return
            left_open, begun_ns = self._run or self._outer, self._first_seen_ns or perf_counter_ns()
            if left_open is not None:
                left_open.abandon()
            self._run = TrainingRun(trainer, TraceMLCallback, self._settings, begun_ns, self._run_closed)

    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        """The sanity check is validation."""
        if self._run is not None:
            self._run.clock.enter(Phase.VALIDATION)

    def on_sanity_check_end(self, trainer: Any, pl_module: Any) -> None:
        """The sanity check was validation."""
        if self._run is not None:
            self._run.clock.leave(Phase.VALIDATION)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Validation owns the time, unless it does already: in the sanity check, and since its loader was started."""
        if self._run is not None and self._run.clock.owner is not Phase.VALIDATION:
            self._run.clock.enter(Phase.VALIDATION)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Validation owned the time."""
        if self._run is not None:
            self._run.clock.leave(Phase.VALIDATION)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The loaders, the step counter and the strategy are settled."""
        if self._run is not None:
            self._run.training_starts()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Another callback may have put a profiler of its own in our place."""
        self._inner_ends(trainer)
        if self._run is not None:
            self._run.stand_in_for_profiler()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A micro-batch is on its way."""
        if self._run is not None:
            self._run.steps.micro_batch(*self._run.size_of(batch))

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Backward begins."""
        if self._run is not None:
            self._run.clock.enter(Phase.BACKWARD)

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        """Backward has ended."""
        if self._run is not None:
            self._run.clock.leave(Phase.BACKWARD)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Results go to the trainer's loggers, where that was asked for."""
        if self._run is not None and self._settings.log_every_n_steps is not None:
            self._run.log_during_training()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """What comes now is the teardown."""
        self._inner_ends(trainer)
        if self._run is not None:
            self._run.training_ends()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """What is left is to close loggers and progress bar; the report follows."""
        self._inner_ends(trainer)
        if self._run is not None and self._run.trainer is trainer:
            self._run.tears_down()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The run was ended by an error, which goes on as it is."""
        self._inner_ends(trainer)
        if self._run is not None and self._run.trainer is trainer:
            interrupted = isinstance(exception, (KeyboardInterrupt, SystemExit))
            self._run.finish("interrupted" if interrupted else "failed", exception)
            self._run.close()

    def _is_inside_another(self, trainer: Any) -> bool:
        """Whether the run of another trainer that has this callback goes on: it hears nothing until `trainer` ends."""
        run = self._run or self._outer
        if run is None or run.trainer is trainer or not run.goes_on:
            return False
        if self._outer is None:
            say("a training inside another one is told as a part of that")
            self._run, self._outer, self._inner = None, run, trainer
        return True

    def _inner_ends(self, trainer: Any) -> None:
        """The run that was set aside hears again: its trainer goes on, or the one inside it is over."""
        if self._outer is not None and (trainer is self._inner or trainer is self._outer.trainer):
            self._run, self._outer, self._inner = self._outer, None, None

    def _run_closed(self) -> None:
        """The run has been closed; the next `fit` opens its own."""
        self._run = self._outer = self._inner = None
        self._first_seen_ns = None


def _first_of_ours(trainer: Any) -> TraceMLCallback:
    """The callback of this trainer that counts, where it has several."""
    ours = [one for one in trainer.callbacks if isinstance(one, TraceMLCallback)]
    return next((one for one in ours if not one.gives_way), ours[0])


def _is_tuning(trainer: Any) -> bool:
    """Whether this `fit` is a trial of Lightning's tuner, which leaves it by an exception of its own."""
    return any(getattr(callback, "_early_exit", False) for callback in trainer.callbacks)
