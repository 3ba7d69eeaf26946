"""The trackers of `report_to`: results go to them through their own clients, past `log_history`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.telemetry.messages import Verdict

logger = get_error_logger("TrainerTrackers")


class Tracker(msgspec.Struct, frozen=True):
    """A tracker that is open: how it takes numbers at a step, and words at the end."""

    name: str
    write_numbers: Callable[[dict[str, float], int], object]
    write_words: Callable[[str, int], object]


def open_trackers(callbacks: Iterable[Any]) -> list[Tracker]:
    """The trackers among a trainer's callbacks that are open and whose client is known."""
    found = []
    for callback in callbacks:
        name = type(callback).__name__
        if name in _KNOWN:
            with fail_open(logger, f"looking at the tracker {name}"):
                found.append(_KNOWN[name](callback))
    return [tracker for tracker in found if tracker is not None]


def write_numbers(trackers: list[Tracker], verdict: Verdict, step: int) -> None:
    """Write the numbers of a verdict to each; one that fails costs the others nothing."""
    for tracker in trackers:
        with fail_open(logger, f"writing to the tracker {tracker.name}"):
            tracker.write_numbers(verdict.metrics, step)


def write_verdict(trackers: list[Tracker], verdict: Verdict, step: int) -> None:
    """Write the numbers and the words of the last verdict to each."""
    write_numbers(trackers, verdict, step)
    for tracker in trackers:
        with fail_open(logger, f"writing to the tracker {tracker.name}"):
            tracker.write_words(verdict.words, step)


def _tensorboard(callback: Any) -> Tracker | None:
    writer = callback.tb_writer
    if writer is None:
        return None

    def numbers(metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    def words(text: str, step: int) -> None:
        writer.add_text("traceml/verdict", text, step)
        writer.flush()

    return Tracker("TensorBoard", numbers, words)


def _mlflow(callback: Any) -> Tracker | None:
    if not callback._initialized:
        return None
    client = callback._ml_flow
    return Tracker(
        "MLflow",
        lambda metrics, step: client.log_metrics(metrics, step=step),
        lambda text, _: client.set_tag("traceml.verdict", text),
    )


def _wandb(callback: Any) -> Tracker | None:
    run = getattr(callback._wandb, "run", None)
    if run is None:
        return None
    return Tracker(
        "W&B",
        lambda metrics, step: run.log({**metrics, "train/global_step": step}),
        lambda text, _: run.summary.update({"traceml/verdict": text}),
    )


_KNOWN: dict[str, Callable[[Any], Tracker | None]] = {
    "MLflowCallback": _mlflow,
    "TensorBoardCallback": _tensorboard,
    "WandbCallback": _wandb,
}
