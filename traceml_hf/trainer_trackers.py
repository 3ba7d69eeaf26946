"""The trackers of `report_to`: results go to them through their own clients, past `log_history`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from traceml_core.telemetry.messages import Verdict


def write_results(callbacks: Iterable[Any], verdict: Verdict, step: int) -> None:
    """Write metrics and the verdict to every tracker that is open and whose client is known."""
    text = f"{verdict.kind} ({verdict.severity}): {verdict.summary} {verdict.action}"
    for callback in callbacks:
        write = _WRITERS.get(type(callback).__name__)
        if write is not None:
            write(callback, verdict.metrics, text, step)


def _tensorboard(callback: Any, metrics: dict[str, float], text: str, step: int) -> None:
    writer = callback.tb_writer
    if writer is not None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
        writer.add_text("traceml/verdict", text, step)
        writer.flush()


def _mlflow(callback: Any, metrics: dict[str, float], text: str, step: int) -> None:
    if callback._initialized:
        callback._ml_flow.log_metrics(metrics, step=step)
        callback._ml_flow.set_tag("traceml.verdict", text)


def _wandb(callback: Any, metrics: dict[str, float], text: str, step: int) -> None:
    run = getattr(callback._wandb, "run", None)
    if run is not None:
        run.log({**metrics, "train/global_step": step})
        run.summary["traceml/verdict"] = text


_WRITERS: dict[str, Callable[[Any, dict[str, float], str, int], None]] = {
    "MLflowCallback": _mlflow,
    "TensorBoardCallback": _tensorboard,
    "WandbCallback": _wandb,
}
