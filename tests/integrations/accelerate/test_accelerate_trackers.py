"""The verdict in the trackers that the accelerator has, read back from their own files."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from accelerate_loops import Model, make_loader, train_epoch

from traceml_core.telemetry.messages import Verdict
from traceml_hf.accelerate import TraceMLCallback

VERDICT = Verdict(
    "INPUT_BOUND", "warning", "Training waits for data.", "Raise num_workers.", {"traceml/forward_ms": 2.5}
)


def train(accelerator, sessions, **settings):
    accelerator.init_trackers("digits")
    model = Model()
    with TraceMLCallback(**settings).attach(accelerator):
        sessions[0].verdict = VERDICT
        train_epoch(
            accelerator, *accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01), make_loader())
        )
        accelerator.log({"loss": 0.5}, step=6)
        accelerator.end_training()


def read_tensorboard(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    return events.Reload()


def test_tensorboard_gets_numbers_and_words_before_it_is_closed(sessions, tmp_path):
    pytest.importorskip("tensorboard")
    train(Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path), sessions)
    events = read_tensorboard(tmp_path / "digits")
    assert [(event.step, event.value) for event in events.Scalars("traceml/forward_ms")] == [(6, 2.5)]
    (text,) = events.Tensors("traceml/verdict/text_summary")
    assert b"INPUT_BOUND (warning): Training waits for data. Raise num_workers." in text.tensor_proto.string_val[0]
    assert [event.value for event in events.Scalars("loss")] == [0.5]


def test_numbers_are_written_during_the_run_when_asked(sessions, tmp_path):
    pytest.importorskip("tensorboard")
    train(Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path), sessions, log_every_n_steps=2)
    events = read_tensorboard(tmp_path / "digits")
    assert [event.step for event in events.Scalars("traceml/forward_ms")] == [2, 4, 6]


def test_trackers_are_left_alone_when_asked(sessions, tmp_path):
    pytest.importorskip("tensorboard")
    train(Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path), sessions, trackers=False)
    assert read_tensorboard(tmp_path / "digits").Tags()["scalars"] == ["loss"]


def test_mlflow_gets_numbers_and_a_tag_in_the_run_that_is_open(sessions, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tmp_path.as_uri())
    try:
        train(Accelerator(cpu=True, log_with="mlflow"), sessions)
        (run,) = mlflow.MlflowClient().search_runs(
            [experiment.experiment_id for experiment in mlflow.search_experiments()]
        )
    finally:
        mlflow.set_tracking_uri(before)
    assert run.data.metrics == {"traceml/forward_ms": 2.5, "loss": 0.5}
    assert run.data.tags["traceml.verdict"].startswith("INPUT_BOUND (warning)")
    assert run.info.status == "FINISHED"


def test_a_tracker_that_fails_takes_neither_the_training_nor_the_others_with_it(sessions, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from accelerate.tracking import GeneralTracker

    class Broken(GeneralTracker):
        name = "broken"
        requires_logging_directory = False

        def __init__(self):
            super().__init__()

        @property
        def tracker(self):
            return None

        def start(self): ...

        def store_init_configuration(self, values): ...

        def log(self, values, step=None, **options):
            if "loss" not in values:
                raise ConnectionError("the tracking server is away")

    train(Accelerator(cpu=True, log_with=[Broken(), "tensorboard"], project_dir=tmp_path), sessions)
    assert len(sessions[0].numbered) == 6
    assert read_tensorboard(tmp_path / "digits").Scalars("traceml/forward_ms")
