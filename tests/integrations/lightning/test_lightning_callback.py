"""What the Lightning callback does with every way of training, and leaves behind."""

from __future__ import annotations

import contextlib
import copy
import pickle
import subprocess
import sys

import lightning as pl
import pytest
import torch
from lightning_models import Manual, Plain, Samples, Stream, loader, trainer

from traceml_lightning import TraceMLCallback
from traceml_lightning.attached_callback import AttachedCallback


def test_accumulated_micro_batches_are_one_step(runs_dir, recorded):
    trainer(runs_dir, accumulate_grad_batches=3).fit(Plain(), loader(6))
    run = recorded()
    assert list(run.steps["micro_batches"]) == [3, 3]
    assert run.summary.run.accumulation == 3


def test_several_optimizers_in_one_window_are_one_step(runs_dir, recorded):
    trainer(runs_dir).fit(Manual(), loader(5))
    run = recorded()
    assert list(run.steps["step"]) == [1, 2, 3, 4, 5]
    assert run.typical_ms("backward") > 0
    assert run.typical_ms("optimizer") > 0


def test_several_loaders_make_one_batch(runs_dir, recorded):
    trainer(runs_dir).fit(_TwoLoaders(), {"a": loader(4), "b": loader(4)})
    assert recorded().summary.run.steps == 4


def test_a_stream_without_length_is_followed(runs_dir, recorded):
    stream = torch.utils.data.DataLoader(Stream(10), batch_size=2)
    trainer(runs_dir).fit(Plain(), stream)
    assert recorded().summary.run.steps == 5


def test_a_step_that_takes_the_iterator_is_followed(runs_dir, recorded):
    trainer(runs_dir).fit(_TakesIterator(), loader(5))
    run = recorded()
    assert run.summary.run.steps == 5
    assert run.total_ms("input_wait") > 0


def test_fast_dev_run_is_recorded(runs_dir, recorded):
    trainer(runs_dir, fast_dev_run=True).fit(Plain(), loader(), loader())
    assert recorded().summary.run.steps == 1


def test_two_fits_are_two_runs(runs_dir, recorded):
    twice = trainer(runs_dir)
    twice.fit(Plain(), loader(3))
    twice.fit_loop.max_epochs = 2
    twice.fit(Plain(), loader(3))
    runs = recorded(every=True)
    assert [run.summary.run.status for run in runs] == ["completed", "completed"]
    assert [list(run.steps["step"]) for run in runs] == [[1, 2, 3], [4, 5, 6]]


def test_an_error_ends_the_run_as_failed_and_goes_on_as_it_is(runs_dir, recorded):
    error = RuntimeError("no more data")
    with pytest.raises(RuntimeError) as raised:
        trainer(runs_dir).fit(_Raises(error), loader())
    assert raised.value is error
    run = recorded().summary.run
    assert run.status == "failed"
    assert (run.error.type, run.error.message, run.error.step) == ("RuntimeError", "no more data", 2)


def test_ctrl_c_ends_the_run_as_interrupted(runs_dir, recorded):
    with contextlib.suppress(SystemExit):  # by which newer releases of Lightning leave
        trainer(runs_dir).fit(_Raises(KeyboardInterrupt()), loader())
    assert recorded().summary.run.status == "interrupted"


@pytest.mark.parametrize("inner_fails", [False, True])
def test_a_fit_inside_another_one_with_the_same_callback_is_a_part_of_it(inner_fails, runs_dir, recorded, capsys):
    ours = TraceMLCallback(runs_dir=str(runs_dir), report="off")
    outer = trainer(runs_dir, ours, _FitsInside(ours, inner_fails), settings=False, max_epochs=2)
    outer.fit(Plain(forward_ms=2), loader(4))
    run = recorded()
    assert (run.summary.run.status, list(run.steps["step"])) == ("completed", list(range(1, 9)))
    assert (run.steps["forward_ns"] >= 2e6).all()
    assert run.owners["callbacks", "_FitsInside"] > 0
    assert "inside another" in capsys.readouterr().err
    assert type(outer.profiler).__name__ == "PassThroughProfiler"


def _left_open(runs_dir):
    """A callback whose run nobody closed, and the trainer that it was in."""
    ours = TraceMLCallback(runs_dir=str(runs_dir), report="off")
    left = trainer(runs_dir, _FailsBeforeUs(), ours, settings=False)
    with pytest.raises(LookupError):
        left.fit(_Raises(RuntimeError("no more data")), loader())
    return ours, left


def test_a_run_that_nobody_closed_ends_as_failed_where_the_next_fit_begins(runs_dir, recorded):
    ours, left = _left_open(runs_dir)
    trainer(runs_dir, ours, settings=False).fit(Plain(), loader(3))
    runs = [run.summary.run for run in recorded(every=True)]
    assert [(run.status, run.steps) for run in runs] == [("failed", 2), ("completed", 3)]
    assert type(left.profiler).__name__ == "PassThroughProfiler"


def test_a_run_that_the_session_ends_leaves_the_trainer_as_it_was(runs_dir, recorded):
    ours, left = _left_open(runs_dir)
    ours._run._session.close()
    assert ours._run is None
    assert type(left.profiler).__name__ == "PassThroughProfiler"


def test_what_cannot_be_watched_leaves_no_run_open(runs_dir, recorded, monkeypatch):
    monkeypatch.setattr("traceml_lightning.training_run.ActionTable", None)
    trainer(runs_dir).fit(Plain(), loader(2))
    assert recorded().summary.run.status == "interrupted"


def test_validate_test_and_predict_open_no_run(runs_dir):
    ready = trainer(runs_dir)
    ready.validate(Plain(), loader(2))
    assert not runs_dir.exists()


def test_the_tuner_opens_no_run(runs_dir, tmp_path):
    tuned = trainer(runs_dir, default_root_dir=tmp_path)
    pl.pytorch.tuner.Tuner(tuned).lr_find(_Tunable(), loader(40), num_training=5, update_attr=False)
    assert not runs_dir.exists()


@pytest.mark.parametrize("finder", ["LearningRateFinder", "BatchSizeFinder"])
def test_the_trial_steps_of_a_finder_are_none_of_the_runs(finder, runs_dir, recorded, tmp_path):
    options = {"num_training_steps": 12} if finder == "LearningRateFinder" else {"max_trials": 2, "steps_per_trial": 3}
    callback = getattr(pl.pytorch.callbacks, finder)(**options)
    fitted = trainer(runs_dir, callback, default_root_dir=tmp_path, limit_train_batches=4)
    fitted.fit(_Tunable())
    run = recorded()
    trained = fitted.global_step  # fewer than 4, or none, after a learning rate finder under Lightning 2.2
    assert trained == 4 or pl.__version__.startswith("2.2.")
    assert list(run.steps["step"]) == list(range(1, trained + 1))
    assert run.owners["callbacks", finder] > 0


def test_resume_goes_on_counting(runs_dir, recorded, tmp_path):
    first = trainer(runs_dir, settings=False)
    first.fit(Plain(), loader(4))
    first.save_checkpoint(tmp_path / "saved.ckpt")
    trainer(runs_dir, max_epochs=2).fit(Plain(), loader(4), ckpt_path=tmp_path / "saved.ckpt")
    assert list(recorded().steps["step"]) == [5, 6, 7, 8]


def test_nothing_of_ours_is_in_a_checkpoint(runs_dir, tmp_path):
    saved = []
    for settings in (False, None):
        one = trainer(runs_dir, settings=settings)
        one.fit(Plain(), loader(2))
        one.save_checkpoint(tmp_path / "saved.ckpt")
        saved.append(torch.load(tmp_path / "saved.ckpt", weights_only=False))
    assert saved[0].keys() == saved[1].keys()
    assert saved[0]["callbacks"].keys() == saved[1]["callbacks"].keys()


@pytest.mark.parametrize("profiler", ["simple", "advanced"])
def test_the_users_own_profiler_works_on(profiler, runs_dir, recorded, tmp_path):
    kind = {"simple": pl.pytorch.profilers.SimpleProfiler, "advanced": pl.pytorch.profilers.AdvancedProfiler}[profiler]
    theirs = kind(dirpath=tmp_path, filename="profile")
    profiled = trainer(runs_dir, profiler=theirs)
    profiled.fit(Plain(), loader(4))
    assert profiled.profiler is theirs
    assert "run_training_batch" in "".join(path.read_text() for path in tmp_path.glob("*profile*.txt"))
    assert recorded().typical_ms("forward") > 0


def test_the_stock_profiler_is_put_back(runs_dir):
    used = trainer(runs_dir)
    before = used.profiler
    used.fit(Plain(), loader(2))
    assert used.profiler is before


def test_the_second_callback_does_nothing_and_says_so(runs_dir, recorded, capsys):
    second = TraceMLCallback(runs_dir=str(runs_dir), report="off")
    trainer(runs_dir, second).fit(Plain(), loader(2))
    assert capsys.readouterr().err.count("second TraceMLCallback") == 1
    assert recorded().summary.run.steps == 2


def test_an_attached_callback_leaves_the_trainer_to_one_of_its_own_without_a_word(runs_dir, recorded, capsys):
    own = trainer(runs_dir)
    own.callbacks.insert(0, AttachedCallback(runs_dir=str(runs_dir), report="off", name="attached"))
    own.fit(Plain(), loader(2))
    assert "second" not in capsys.readouterr().err
    assert recorded().summary.run.name != "attached"


def test_a_disabled_callback_touches_nothing(runs_dir):
    used = trainer(runs_dir, _SeesStockProfiler(), settings={"enabled": False})
    used.fit(Plain(), loader(2))
    assert not runs_dir.exists()


def test_copies_of_a_callback_record_runs_of_their_own(runs_dir, recorded):
    ours = TraceMLCallback(runs_dir=str(runs_dir), report="off")
    for one in (pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)):
        trainer(runs_dir, one, settings=False).fit(Plain(), loader(2))
    copied = copy.deepcopy(ours)
    pickle.loads(pickle.dumps(copied))
    assert len(recorded(every=True)) == 2


def test_a_trainer_copied_or_pickled_during_a_run_is_a_trainer_without_a_run(runs_dir, tmp_path, recorded):
    copier = _CopiesTrainer()
    original = trainer(runs_dir, copier, logger=pl.pytorch.loggers.CSVLogger(tmp_path))
    original.fit(Plain(), loader(4))
    assert len(copier.copies) == 2
    for copied in copier.copies:
        assert type(copied.profiler) is type(original.profiler)
        assert copied.logger.log_metrics.__self__ is copied.logger
    assert recorded().summary.run.steps == 4


@pytest.mark.parametrize(
    ("setting", "value", "accepted"),
    [
        ("port", 70000, "0 to 65535"),
        ("mode", "verbose", "'summary'"),
        ("sample_interval_s", 0, "seconds"),
        ("nmae", 1, "name"),
    ],
)
def test_a_bad_argument_raises_at_construction(setting, value, accepted):
    with pytest.raises(ValueError, match=setting) as raised:
        TraceMLCallback(**{setting: value})
    assert accepted in str(raised.value)


def test_lightning_cli_can_build_it():
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(TraceMLCallback, "callback")
    chosen = parser.parse_args(["--callback.name=mine", "--callback.sample_interval_s=2.0"])
    built = parser.instantiate_classes(chosen).callback
    assert (built._settings.name, built._settings.sample_interval_s) == ("mine", 2.0)


def test_either_name_of_lightning_drives_the_callback(runs_dir, tmp_path):
    pytest.importorskip("pytorch_lightning")
    script = tmp_path / "train.py"
    script.write_text(_BOTH_NAMES.format(runs_dir=str(runs_dir)))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["lightning", "False"]
    assert len(list(runs_dir.glob("*/final_summary.json"))) == 1


_BOTH_NAMES = """
import sys
import patience
import pytorch_lightning as pl
import torch
from traceml_lightning import TraceMLCallback

patience.wait_patiently()

class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
    def training_step(self, batch, _):
        return self.layer(batch[0]).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 4)), batch_size=2)
callback = TraceMLCallback(runs_dir={runs_dir!r}, report="off")
pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
           enable_model_summary=False, callbacks=[callback]).fit(Module(), data)
print("lightning", "lightning.pytorch" in sys.modules)
"""


class _TwoLoaders(Plain):
    def training_step(self, batch, batch_idx):
        return self.loss(batch["a"]) + self.loss(batch["b"])


class _FitsInside(pl.Callback):
    """Fits by a trainer of its own that has the same callback, once."""

    def __init__(self, ours, fails):
        self.ours, self.fails = ours, fails

    def on_train_epoch_end(self, trainer_, pl_module):
        if trainer_.current_epoch == 0:
            inner = trainer(None, self.ours, settings=False)
            with contextlib.suppress(RuntimeError):
                inner.fit(_Raises(RuntimeError("inside")) if self.fails else Plain(), loader(4))


class _FailsBeforeUs(pl.Callback):
    def on_exception(self, trainer, pl_module, exception):
        raise LookupError("in on_exception")


class _CopiesTrainer(pl.Callback):
    """Copies its trainer once, in both ways."""

    def __init__(self):
        self.copies = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 2:
            self.copies = [copy.deepcopy(trainer), pickle.loads(pickle.dumps(trainer))]


class _TakesIterator(Plain):
    def training_step(self, dataloader_iter):
        batch, _, _ = next(dataloader_iter)
        return self.loss(batch)


class _Raises(Plain):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def training_step(self, batch, batch_idx):
        if batch_idx == 2:
            raise self.error
        return super().training_step(batch, batch_idx)


class _Tunable(Plain):
    def __init__(self):
        super().__init__()
        self.learning_rate, self.batch_size = 0.01, 2

    def train_dataloader(self):
        return torch.utils.data.DataLoader(Samples(160), batch_size=self.batch_size)

    def val_dataloader(self):
        return loader(1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)


class _SeesStockProfiler(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        assert type(trainer.profiler).__name__ == "PassThroughProfiler"
