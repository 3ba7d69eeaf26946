"""The verdict, written to the trackers that the accelerator already has."""

from __future__ import annotations

from typing import Any

from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.telemetry.messages import Verdict

_logger = get_error_logger("AccelerateTrackers")


def log_verdict(accelerator: Any, verdict: Verdict, step: int, *, with_text: bool) -> None:
    """Write the verdict's numbers, and with `with_text` its words, to each open tracker of `accelerator`.

    Words go only to trackers that hold text. W&B refuses a step below its newest one, so it gets none and files the
    numbers under its present step.
    """
    for tracker in accelerator.trackers:
        with fail_open(_logger, f"writing to the tracker {tracker.name}"):
            tracker.log(verdict.metrics, step=None if tracker.name == "wandb" else step)
            if with_text and tracker.name in _WRITE_TEXT:
                _WRITE_TEXT[tracker.name](tracker.tracker, verdict.words, step)


def _tensorboard(writer: Any, text: str, step: int) -> None:
    writer.add_text("traceml/verdict", text, step)
    writer.flush()


def _mlflow(run: Any, text: str, step: int) -> None:
    from mlflow import MlflowClient

    MlflowClient().set_tag(run.info.run_id, "traceml.verdict", text)


def _wandb(run: Any, text: str, step: int) -> None:
    run.summary["traceml/verdict"] = text


_WRITE_TEXT = {"mlflow": _mlflow, "tensorboard": _tensorboard, "wandb": _wandb}
