"""Results in the loggers that a Lightning trainer has."""

from __future__ import annotations

import csv

import lightning as pl
import pytest
from lightning_models import Plain, loader, trainer

loggers = pl.pytorch.loggers


class Logs(Plain):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss)
        return loss


def test_tensorboard_gets_phase_means_and_the_verdict(runs_dir, recorded, tensorboard_events, tmp_path):
    logger = loggers.TensorBoardLogger(tmp_path, name="board", version=0)
    trainer(runs_dir, logger=logger, log_every_n_steps=1).fit(Logs(forward_ms=5), loader(12))
    events = tensorboard_events(tmp_path / "board" / "version_0")
    (forward,) = events.Scalars("traceml/forward_ms")
    mean_ms = recorded().summary.sections["step_time"].metrics["forward_ms"].mean
    assert (forward.step, forward.value) == (12, pytest.approx(mean_ms))
    (text,) = events.Tensors("traceml/verdict/text_summary")
    assert recorded().summary.primary_diagnosis.kind.encode() in text.tensor_proto.string_val[0]
    assert len(events.Scalars("loss")) == 12


def test_mlflow_gets_phase_means_and_the_verdict_as_a_tag(runs_dir, recorded, mlflow_runs):
    address, read = mlflow_runs
    logger = loggers.MLFlowLogger(experiment_name="tests", tracking_uri=address)
    trainer(runs_dir, logger=logger).fit(Plain(), loader(12))
    (run,) = read()
    assert run.data.metrics["traceml/forward_ms"] > 0
    assert run.data.tags["traceml.verdict"].startswith(recorded().summary.primary_diagnosis.kind)


def test_every_logger_gets_numbers(runs_dir, tmp_path):
    several = [loggers.CSVLogger(tmp_path, name=name, version=0) for name in ("one", "two")]
    trainer(runs_dir, logger=several).fit(Plain(), loader(12))
    for name in ("one", "two"):
        with (tmp_path / name / "version_0" / "metrics.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert float(row["traceml/step_time_ms"]) > 0


def test_results_come_during_the_run_where_asked(runs_dir, tensorboard_events, tmp_path):
    logger = loggers.TensorBoardLogger(tmp_path, name="board", version=0)
    settings = {"log_every_n_steps": 20}
    trainer(runs_dir, logger=logger, settings=settings).fit(Plain(forward_ms=12), loader(330))
    steps = [event.step for event in tensorboard_events(tmp_path / "board" / "version_0").Scalars("traceml/forward_ms")]
    assert steps[-1] == 330
    assert len(steps) > 1
    assert all(step % 20 == 0 for step in steps[:-1])


def test_no_results_where_trackers_are_off(runs_dir, tensorboard_events, tmp_path):
    logger = loggers.TensorBoardLogger(tmp_path, name="board", version=0)
    trainer(runs_dir, logger=logger, settings={"trackers": False}).fit(Plain(), loader(4))
    assert not [
        tag for tag in tensorboard_events(tmp_path / "board" / "version_0").Tags()["scalars"] if "traceml" in tag
    ]


def test_the_loggers_are_as_they_were(runs_dir, tmp_path):
    logger = loggers.CSVLogger(tmp_path, name="one", version=0)
    before = dict(vars(logger))
    trainer(runs_dir, logger=logger).fit(Plain(), loader(4))
    assert vars(logger).keys() == before.keys()
