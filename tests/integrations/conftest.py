"""Fixtures of the framework tests: where a run goes, and what it left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from traceml_core.history.reader import Columns, HistoryReader, RankRecord
from traceml_core.reporting.summary import FinalSummary, decode_summary


class RecordedRun(msgspec.Struct):
    """What one run folder holds."""

    folder: Path
    summary: FinalSummary
    steps: Columns
    rows: Columns
    owners: Counter[tuple[str, str]]
    ranks: list[RankRecord]

    def typical_ms(self, phase: str) -> float:
        """Median milliseconds a step in a phase: what a noisy machine does to some steps does not move it."""
        return float(np.median(self.steps[f"{phase}_ns"])) / 1e6

    def quiet_ms(self, phase: str) -> float:
        """Milliseconds of a quiet step in a phase."""
        return quiet(self.steps[f"{phase}_ns"] / 1e6)

    def quiet_excess_ms(self, phase: str, waited_ms: list[float]) -> float:
        """What a phase has in a quiet step beyond the waits of the same step, of which each has as many."""
        steps = len(self.steps["step"])
        waits = len(waited_ms) // steps
        planted_ms = np.array(waited_ms[: steps * waits]).reshape(steps, waits).sum(axis=1)
        return quiet(self.steps[f"{phase}_ns"] / 1e6 - planted_ms)

    def total_ms(self, phase: str) -> float:
        """Milliseconds of the whole run in a phase."""
        return float(np.nansum(self.rows[f"{phase}_ns"])) / 1e6


def quiet(values: np.ndarray) -> float:
    """The value of a quiet step, of which a quarter have less: what a busy machine does to others does not move it."""
    return float(np.sort(values)[len(values) // 4])


def read_run(folder: Path) -> RecordedRun:
    """Read a run folder."""
    with HistoryReader(folder / "telemetry.sqlite") as reader:
        rows, owner_rows, ranks = reader.columns("step_time"), reader.columns("owner_time"), reader.ranks()
    in_step = ~np.isnan(rows["step"])
    owners: Counter[tuple[str, str]] = Counter()
    if owner_rows:
        for phase, owner, spent_ns in zip(
            owner_rows["phase"], owner_rows["owner"], owner_rows["spent_ns"], strict=True
        ):
            owners[phase, owner] += spent_ns / 1e6
    summary = decode_summary((folder / "final_summary.json").read_bytes())
    steps = {name: values[in_step] for name, values in rows.items()}
    return RecordedRun(folder, summary, steps, rows, owners, ranks)


@pytest.fixture(autouse=True)
def _patient(patient: None) -> None:
    """Reports are asked for here, and not how soon they come."""


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def recorded(runs_dir: Path) -> Callable[..., Any]:
    """The one run in `runs_dir`; with `every=True` all of them, the oldest first."""

    def read(every: bool = False) -> Any:
        folders = sorted(runs_dir.glob("*/"), key=lambda folder: (folder / "manifest.json").stat().st_mtime_ns)
        runs = [read_run(folder) for folder in folders]
        if every:
            return runs
        assert len(runs) == 1, folders
        return runs[0]

    return read


@pytest.fixture
def tensorboard_events() -> Callable[[Path], Any]:
    """Reads the event files of a TensorBoard folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def read(folder: Path) -> Any:
        return accumulator.EventAccumulator(str(folder)).Reload()

    return read


@pytest.fixture
def mlflow_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Points MLflow at a file store in the test's folder; gives its address and what reads the runs in it."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    address = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(address)

    def read() -> list[Any]:
        client = mlflow.MlflowClient(address)
        return list(client.search_runs([one.experiment_id for one in client.search_experiments()]))

    yield address, read
    mlflow.set_tracking_uri(before)
