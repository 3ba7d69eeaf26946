"""How a Trainer's run begins and ends: at once, whole, with its error, and without a trace left on the trainer."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import subprocess
import sys
import threading
import time
import traceback
import weakref

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from trainer_models import Samples, Tiny, trainer, wait
from transformers import Trainer, TrainerCallback

from traceml_hf import TraceMLCallback


class Breaks(Samples):
    """Data whose sixth sample raises."""

    error: type[BaseException] = IndexError

    def __getitem__(self, index):
        if index == 5:
            raise self.error("no such sample")
        return super().__getitem__(index)


class Interrupts(Breaks):
    error = KeyboardInterrupt


class Slow(Trainer):
    """A trainer whose `train` does much before its loop, as one that loads a checkpoint does."""

    def _hp_search_setup(self, trial):
        wait(300)
        return super()._hp_search_setup(trial)


@pytest.mark.flaky(reruns=2)
@pytest.mark.parametrize("way", ["constructor", "add_callback", "attach"])
def test_all_of_train_is_accounted_for(way, tmp_path, recorded):
    ready = trainer(
        tmp_path, model=Tiny(forward_ms=5, backward_ms=4), data=Samples(500), kind=Slow, settings=_only_if(way)
    )
    ours = TraceMLCallback(runs_dir=str(tmp_path / "runs"), report="off")
    if way == "add_callback":
        ready.add_callback(ours)
    elif way == "attach":
        ours.attach(ready)
    began = time.perf_counter()
    ready.train()
    around_s = time.perf_counter() - began
    run = recorded()
    assert run.rows["interval_ns"].sum() / 1e9 + (run.summary.telemetry.report_s or 0) >= 0.99 * around_s


def _only_if(way):
    return None if way == "constructor" else False


@pytest.mark.parametrize("data", [Samples, Breaks])
def test_a_trainer_is_freed_with_its_last_name(data, tmp_path):
    ready = trainer(tmp_path, data=data(12))
    gone = weakref.ref(ready), weakref.ref(ready.model)
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(IndexError):
            ready.train()
        del ready
        assert [name() for name in gone] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize(("data", "status"), [(Breaks, "failed"), (Interrupts, "interrupted")])
def test_a_caught_error_ends_the_run_where_it_was_raised(data, status, tmp_path, recorded):
    ready = trainer(tmp_path, data=data(12))
    began = time.perf_counter()
    with pytest.raises(data.error):
        ready.train()
    around_s = time.perf_counter() - began
    wait(300)
    run = recorded()
    assert (run.summary.run.status, run.summary.run.error.type) == (status, data.error.__name__)
    assert run.summary.time_budget.wall_s < around_s
    assert "_call_impl" not in vars(ready.model)


def test_a_caught_error_carries_no_frame_of_ours(tmp_path):
    if sys.version_info < (3, 11):
        pytest.skip("a re-raised error keeps its frames there")
    try:
        trainer(tmp_path, data=Breaks(12)).train()
    except IndexError as error:
        files = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
        assert not [file for file in files if "traceml_" in file]


def test_the_batch_that_did_not_fit_is_named(tmp_path, recorded):
    trainer(tmp_path, model=_TooLarge(), auto_find_batch_size=True, per_device_train_batch_size=8).train()
    *attempts, last = [run.summary.run for run in recorded(every=True)]
    assert {(run.status, run.error.type, run.error.message) for run in attempts} == {
        ("failed", "RuntimeError", "CUDA out of memory.")
    }
    assert last.status == "completed"


class _TooLarge(Tiny):
    def forward(self, features, labels):
        if self.training and len(features) > 4:
            raise RuntimeError("CUDA out of memory.")
        return super().forward(features, labels)


class SlowEnd(TrainerCallback):
    def on_train_end(self, *_, **__):
        wait(200)


def test_what_callbacks_do_at_the_end_is_theirs(tmp_path, recorded):
    trainer(tmp_path, SlowEnd()).train()
    assert recorded().owners["callbacks", "SlowEnd"] >= 200


class ReplacesTheList(TrainerCallback):
    def __init__(self, trainer):
        self.handler = trainer.callback_handler

    def on_step_end(self, *_, **__):
        self.handler.callbacks = [*self.handler.callbacks]


def test_a_run_ends_with_its_training_where_somebody_replaced_the_list_of_callbacks(tmp_path, recorded):
    ready = trainer(tmp_path)
    ready.add_callback(ReplacesTheList(ready))
    ready.train()
    assert recorded().summary.run.status == "completed"


class TrainsAnother(TrainerCallback):
    def __init__(self, folder, shared=None):
        self.folder, self.shared = folder, shared

    def on_step_end(self, args, state, control, **_):
        if state.global_step == 2 and self.shared is None:
            trainer(self.folder).train()
        elif state.global_step == 2:
            trainer(self.folder, self.shared, settings=False).train()


class TrainsBeside(TrainsAnother):
    def on_step_end(self, *arguments, **options):
        beside = threading.Thread(target=super().on_step_end, args=arguments, kwargs=options)
        beside.start()
        beside.join()


class Fails(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == 4:
            raise IndexError("no such sample")


def test_a_training_inside_another_one_is_a_part_of_it(tmp_path, recorded, capsys):
    trainer(tmp_path, TrainsAnother(tmp_path)).train()
    run = recorded()
    assert list(run.steps["step"]) == [1, 2, 3, 4, 5, 6]
    assert run.owners["callbacks", "TrainsAnother"] > 10
    assert "inside another" in capsys.readouterr().err


def test_a_training_in_another_thread_leaves_the_run_alone(tmp_path, recorded, capsys):
    trainer(tmp_path, TrainsBeside(tmp_path)).train()
    told = recorded().summary.run
    assert (told.status, told.steps) == ("completed", 6)
    assert "in another thread" in capsys.readouterr().err


def test_a_run_ends_with_its_training_where_the_same_callback_was_in_one_inside_it(tmp_path, recorded):
    ours = TraceMLCallback(runs_dir=str(tmp_path / "runs"), report="off")
    outer = trainer(tmp_path, ours, TrainsAnother(tmp_path, ours), Fails(), settings=False)
    with pytest.raises(IndexError):
        outer.train()
    told = recorded().summary.run
    assert (told.status, told.steps) == ("failed", 4)
    assert type(outer.callback_handler.callbacks) is list and "backward" not in vars(outer.accelerator)


def test_a_run_of_somebody_else_takes_the_training_in_and_gets_its_hooks_taken_off(tmp_path, recorded):
    from traceml_core.sdk import trace_run

    ready = trainer(tmp_path)
    with trace_run(runs_dir=str(tmp_path / "runs"), report="off"):
        ready.train()
    assert "_call_impl" not in vars(ready.model)
    assert type(ready.callback_handler.callbacks) is list
    assert recorded().summary.run.steps == 6


def test_two_trainings_in_a_run_of_somebody_else_are_both_told(tmp_path, recorded):
    from traceml_core.sdk import trace_run

    with trace_run(runs_dir=str(tmp_path / "runs"), report="off"):
        for _ in range(2):
            trainer(tmp_path, model=Tiny(forward_ms=2)).train()
    run = recorded()
    assert list(run.steps["step"]) == list(range(1, 13))
    assert (run.steps["forward_ns"] >= 2e6).all()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_of_a_trainer_trains_itself(duplicate, tmp_path):
    AcceleratorState._reset_state(True)  # after an error Accelerate keeps references that cannot be pickled
    GradientState._reset_state()
    first = trainer(tmp_path)
    second = duplicate(first)
    second.marked = True
    seen = []
    second.add_callback(_Tells(seen))
    second.train()
    assert seen == [second.state.global_step]
    assert first.state is second.state or first.state.global_step == 0


class _Tells(TrainerCallback):
    def __init__(self, seen):
        self.seen = seen

    def on_train_end(self, args, state, control, **_):
        self.seen.append(state.global_step)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_the_model_in_the_middle_of_a_run_is_a_model_of_its_own(duplicate, tmp_path, recorded):
    class Copies(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 2:
                twin = duplicate(model)
                with torch.no_grad():
                    for parameter in twin.parameters():
                        parameter.zero_()
                assert not twin(torch.ones(1, 4), torch.tensor([0]))["logits"].any()
                twins.append(twin)

    twins: list[torch.nn.Module] = []
    trained = trainer(tmp_path, Copies())
    trained.train()
    assert recorded().summary.run.status == "completed"
    assert len(twins) == 1
    assert "_call_impl" not in vars(trained.model)


def test_a_pruned_trial_is_a_whole_run(tmp_path, recorded):
    optuna = pytest.importorskip("optuna")

    class Prunes(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 0

    search = trainer(
        tmp_path,
        parts={"model_init": lambda trial=None: Tiny(), "eval_dataset": Samples(2)},
        eval_strategy="steps",
        eval_steps=2,
    )
    search.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2)},
        compute_objective=lambda metrics: metrics["eval_loss"],
        n_trials=2,
        backend="optuna",
        pruner=Prunes(),
    )
    runs = recorded(every=True)
    assert [(run.summary.run.status, run.summary.run.steps) for run in runs] == [("completed", 2), ("completed", 6)]


def test_memory_metrics_are_measured_as_ever(tmp_path, recorded):
    trainer(tmp_path, skip_memory_metrics=False).train()
    assert recorded().summary.time_budget.coverage_share >= 0.99


def test_without_transformers_one_line_says_how_to_get_it():
    code = "import sys; sys.modules['transformers'] = None; from traceml_hf import TraceMLCallback"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith(
        "TraceMLCallback needs transformers: pip install 'traceml-callbacks[hf]'"
    )
