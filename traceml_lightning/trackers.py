"""The trainer's own loggers: what they cost is logging, and results go to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.telemetry.messages import Verdict

TIMED = ("log_metrics", "save", "log_hyperparams", "log_graph", "after_save_checkpoint")


class TimedLoggers:
    """Books the time inside loggers to `logging`, by instance attributes that `put_back` takes away again."""

    def __init__(self, loggers: Iterable[Any], clock: PhaseClock, before_the_end: Callable[[], None]) -> None:
        """Begin. `before_the_end` is called whenever one of them is about to be finalized."""
        self._replaced: list[tuple[Any, str]] = []
        for logger in loggers:
            slot = clock.slot(Phase.LOGGING, type(logger).__name__)
            for name in TIMED:
                method = getattr(logger, name, None)
                if callable(method) and name not in vars(logger):
                    setattr(logger, name, LoggerCall(logger, name, _timed(method, clock, slot)))
                    self._replaced.append((logger, name))
            if callable(getattr(logger, "finalize", None)) and "finalize" not in vars(logger):
                logger.finalize = LoggerCall(logger, "finalize", _preceded(logger.finalize, before_the_end))
                self._replaced.append((logger, "finalize"))

    def put_back(self) -> None:
        """End; the loggers are as they were."""
        for logger, name in self._replaced:
            vars(logger).pop(name, None)
        self._replaced.clear()


class LoggerCall:
    """Stands in for a logger's method, on the instance; a copy or pickle of it is the copied logger's own method."""

    __slots__ = ("_call", "_logger", "_name")

    def __init__(self, logger: Any, name: str, call: Callable[..., Any]) -> None:
        """Stand in by `call` for what `logger` has under `name`."""
        self._logger, self._name, self._call = logger, name, call

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call it."""
        return self._call(*arguments, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._logger, self._name)


def write_results(loggers: Iterable[Any], verdict: Verdict, step: int) -> None:
    """Write metrics to every logger, and the verdict as text where a logger takes text."""
    for logger in loggers:
        logger.log_metrics(verdict.metrics, step=step)
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(experiment, "add_text"):  # TensorBoard's writer
            experiment.add_text("traceml/verdict", verdict.words, step)
        elif hasattr(experiment, "set_tag") and hasattr(logger, "run_id"):  # MLflow's client
            experiment.set_tag(logger.run_id, "traceml.verdict", verdict.words)


def _preceded(method: Callable[..., Any], before: Callable[[], None]) -> Callable[..., Any]:
    def preceded(*arguments: Any, **options: Any) -> Any:
        before()
        return method(*arguments, **options)

    return preceded


def _timed(method: Callable[..., Any], clock: PhaseClock, slot: int) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        clock.enter(slot)
        try:
            return method(*arguments, **options)
        finally:
            clock.leave(slot)

    return timed
