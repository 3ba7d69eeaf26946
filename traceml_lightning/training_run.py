"""One `fit`: its session, and what stands in for the trainer's own things while it is open."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable
from typing import Any

import torch

from traceml_core.core.identity import RankIdentity
from traceml_core.core.phases import Phase
from traceml_core.core.settings import Settings
from traceml_core.instrumentation.batch_size import BatchSizes
from traceml_core.instrumentation.gradient_arrival import split_backward
from traceml_core.instrumentation.loader_facts import loader_facts
from traceml_core.instrumentation.process_group import job_store
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.session import CAUGHT, open_session
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import RunError, RunStatus, Verdict
from traceml_lightning.actions import ActionTable, training_loaders
from traceml_lightning.phase_profiler import make_phase_profiler
from traceml_lightning.trackers import TimedLoggers, write_results

logger = get_error_logger("Lightning")
SHARDING = ("FSDPStrategy", "ModelParallelStrategy")


class TrainingRun:
    """An open run of one trainer. Nothing of it outlives `close`."""

    def __init__(
        self, trainer: Any, ours: type, settings: Settings, started_ns: int, on_closed: Callable[[], None]
    ) -> None:
        """Open the session and take the profiler's place. Callbacks of the type `ours` are not measured."""
        self.trainer = trainer
        self._on_closed = on_closed
        self._settings = settings
        self._lightning = importlib.import_module(_package_of(trainer))
        store = job_store() if trainer.world_size > 1 else None
        self._session = open_session(settings, _facts(trainer), _identity(trainer), started_ns=started_ns, store=store)
        self.clock, self.steps = self._session.clock, self._session.steps
        self.size_of = BatchSizes().of
        self._inner: Any = None
        self._stand_in: Any = None
        self._end_split: Callable[[], None] | None = None
        self._logged_step = 0
        self._finished = False
        self._tears_down = False
        lightning = self._lightning
        try:
            bases = (lightning.Callback, lightning.callbacks.Checkpoint, lightning.LightningModule)
            self._table = ActionTable(trainer, ours, self.clock, self.steps, bases)
            self._loggers = TimedLoggers(trainer.loggers, self.clock, self._loggers_end)
            self.stand_in_for_profiler()
        except Exception as error:
            self._session.close("interrupted", error)
            raise
        self._session.on_end = self._let_go

    @property
    def goes_on(self) -> bool:
        """Whether its trainer is still at it; Lightning says no before it tells anybody of an error."""
        return str(self.trainer.state.status.value) == "running"

    def stand_in_for_profiler(self) -> None:
        """Take the place of the trainer's profiler, if ours is not there already."""
        if self.trainer.profiler is self._stand_in:
            return
        self._inner = self.trainer.profiler
        self._stand_in = make_phase_profiler(self._lightning, self._inner, self._table)
        # The last thing that a `fit` asks of its profiler; by then every other callback is torn down.
        self._stand_in.__dict__["describe"] = self._describe_and_close
        self.trainer.profiler = self._stand_in

    def training_starts(self) -> None:
        """Note what is known only now."""
        with fail_open(logger, "reading the trainer"):
            if not self.steps.steps_done:  # else this run is a part of one that has done steps
                self.steps.start_at(self.trainer.global_step)
            loader = next(iter(training_loaders(self.trainer)), None)
            if loader is not None:
                self._session.describe(**loader_facts(loader))
            if self.trainer.world_size > 1:
                self._end_split = split_backward(self.trainer.model, self.clock, self.steps.gradients_arrived)
                if self._end_split is None:
                    self._session.describe(unmeasured=(Phase.GRAD_SYNC.key,))

    def training_ends(self) -> None:
        """Close the last step; what follows is teardown."""
        self.steps.finish()
        self.clock.enter(Phase.TEARDOWN)

    def log_during_training(self) -> None:
        """Write the newest live verdict to the loggers, every `log_every_n_steps`."""
        step = self.trainer.global_step
        if step != self._logged_step and step % (self._settings.log_every_n_steps or 1) == 0:
            self._logged_step = step
            self._write(self._session.live_verdict())

    def tears_down(self) -> None:
        """Every hook but the teardowns has been called. The run goes on until the last thing that Lightning does.

        Where results are to be written to loggers, that is what it does before it ends the first of them.
        """
        self._tears_down = True
        self.stand_in_for_profiler()

    def finish(self, status: RunStatus, error: BaseException | RunError | None = None) -> None:
        """End the measuring and write the results to the loggers."""
        if self._finished:
            return
        self._stop_watching()
        self._session.on_end = None
        self._write(self._session.finish(status, error))

    def close(self) -> None:
        """Put the profiler back and print the report."""
        self._put_profiler_back()
        self._session.close()
        self._on_closed()

    def abandon(self) -> None:
        """The run was left by an error that somebody caught, and nobody told of it."""
        self.finish("failed", CAUGHT)
        self.close()

    def _let_go(self) -> None:
        """Leave the trainer as it was found: somebody else ends the run."""
        self._stop_watching()
        self._put_profiler_back()
        self._on_closed()

    def _stop_watching(self) -> None:
        self._finished = True
        if self._end_split is not None:
            self._end_split()
        self._loggers.put_back()

    def _put_profiler_back(self) -> None:
        if self.trainer.profiler is self._stand_in:
            self.trainer.profiler = self._inner

    def _loggers_end(self) -> None:
        if self._tears_down and self._settings.trackers:
            self.finish("completed")

    def _describe_and_close(self) -> None:
        self._inner.describe()
        if self._tears_down:
            self.finish("completed")
            self.close()

    def _write(self, verdict: Verdict | None) -> None:
        if verdict is not None and self._settings.trackers:
            with fail_open(logger, "writing to the trainer's loggers"):
                write_results(self.trainer.loggers, verdict, self.trainer.global_step)


def _package_of(trainer: Any) -> str:
    """The Lightning that this trainer belongs to: `lightning.pytorch` or `pytorch_lightning`."""
    for kind in type(trainer).__mro__:
        for name in ("lightning.pytorch", "pytorch_lightning"):
            if kind.__module__.startswith(f"{name}."):
                return name
    return "lightning.pytorch"


def _facts(trainer: Any) -> RunFacts:
    strategy = type(trainer.strategy).__name__
    unmeasured: tuple[str, ...] = ()
    if strategy in SHARDING:
        unmeasured = (Phase.GRAD_SYNC.key,)
    elif strategy == "DeepSpeedStrategy":
        unmeasured = (Phase.GRAD_SYNC.key, Phase.OPTIMIZER.key)
    package = importlib.import_module(_package_of(trainer))
    return RunFacts(
        framework="lightning",
        versions={
            "lightning": str(package.__version__),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        device=trainer.strategy.root_device.type,
        precision=str(trainer.precision),
        accumulation=trainer.accumulate_grad_batches,
        unmeasured=unmeasured,
    )


def _identity(trainer: Any) -> RankIdentity:
    return RankIdentity(
        rank=trainer.global_rank,
        local_rank=trainer.local_rank,
        world_size=trainer.world_size,
        nodes=trainer.num_nodes,
    )
