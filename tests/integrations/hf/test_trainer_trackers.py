"""Results in the trackers of `report_to`."""

from __future__ import annotations

import pytest
from trainer_models import Samples, Tiny, trainer


def test_tensorboard_gets_phase_means_and_the_verdict(tmp_path, recorded, tensorboard_events, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    options = {"report_to": ["tensorboard"], "logging_strategy": "steps", "logging_steps": 4}
    used = trainer(tmp_path, model=Tiny(forward_ms=5), data=Samples(24), **options)
    used.train()
    (folder,) = {path.parent for path in tmp_path.rglob("events.out.tfevents*")}
    events = tensorboard_events(folder)
    (forward,) = events.Scalars("traceml/forward_ms")
    mean_ms = recorded().summary.sections["step_time"].metrics["forward_ms"].mean
    assert (forward.step, forward.value) == (12, pytest.approx(mean_ms))
    (text,) = events.Tensors("traceml/verdict/text_summary")
    assert recorded().summary.primary_diagnosis.kind.encode() in text.tensor_proto.string_val[0]
    assert not [name for entry in used.state.log_history for name in entry if "traceml" in name]


def test_mlflow_gets_phase_means_and_the_verdict_as_a_tag(tmp_path, recorded, mlflow_runs):
    _, read = mlflow_runs
    trainer(tmp_path, data=Samples(24), report_to=["mlflow"]).train()
    (run,) = read()
    assert run.data.metrics["traceml/forward_ms"] > 0
    assert run.data.tags["traceml.verdict"].startswith(recorded().summary.primary_diagnosis.kind)
    assert run.info.status == "FINISHED"


def test_results_come_during_the_run_where_asked(tmp_path, tensorboard_events, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    settings = {"log_every_n_steps": 20}
    slow = {"model": Tiny(forward_ms=12), "data": Samples(660)}
    trainer(tmp_path, settings=settings, report_to=["tensorboard"], **slow).train()
    (folder,) = {path.parent for path in tmp_path.rglob("events.out.tfevents*")}
    steps = [event.step for event in tensorboard_events(folder).Scalars("traceml/forward_ms")]
    assert steps[-1] == 330
    assert len(steps) > 1
    assert all(step % 20 == 0 for step in steps[:-1])


def test_no_results_where_trackers_are_off(tmp_path, tensorboard_events, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    trainer(tmp_path, settings={"trackers": False}, report_to=["tensorboard"]).train()
    (folder,) = {path.parent for path in tmp_path.rglob("events.out.tfevents*")}
    assert not [tag for tag in tensorboard_events(folder).Tags()["scalars"] if "traceml" in tag]
