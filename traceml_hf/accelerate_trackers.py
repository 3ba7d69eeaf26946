"""The verdict, written to the trackers that the accelerator already has."""

from __future__ import annotations

from typing import Any

from traceml_core.telemetry.messages import Verdict


def log_verdict(accelerator: Any, verdict: Verdict, step: int, *, with_text: bool) -> None:
    """Write the verdict's numbers, and with `with_text` its words, to each tracker of `accelerator`.

    Words go only to trackers that hold text. W&B refuses a step below its newest one, so it gets none and files the
    numbers under its present step.
    """
    words = {
        "traceml/diagnosis": verdict.kind,
        "traceml/severity": verdict.severity,
        "traceml/summary": verdict.summary,
        "traceml/action": verdict.action,
    }
    for tracker in accelerator.trackers:
        values: dict[str, Any] = dict(verdict.metrics)
        if with_text and tracker.name in ("tensorboard", "wandb"):
            values.update(words)
        tracker.log(values, step=None if tracker.name == "wandb" else step)
        if with_text and tracker.name == "mlflow":
            _tag_mlflow_run(tracker, words)


def _tag_mlflow_run(tracker: Any, words: dict[str, str]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient()
    for name, text in words.items():
        client.set_tag(tracker.tracker.info.run_id, name, text)
