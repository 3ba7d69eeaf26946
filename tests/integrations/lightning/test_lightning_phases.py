"""Where time planted in a Lightning training lands."""

from __future__ import annotations

import time

import lightning as pl
import pytest
import torch
from lightning_models import WAITED_MS, Plain, loader, trainer, wait

PLANTED_MS = 12.0
PHASES = (
    "input_wait",
    "h2d",
    "forward",
    "backward",
    "optimizer",
    "validation",
    "checkpoint",
    "logging",
    "callbacks",
)


class SlowCopy(Plain):
    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        wait(PLANTED_MS)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)


class SlowOptimizer(torch.optim.SGD):
    def step(self, closure=None):
        loss = super().step(closure)
        wait(PLANTED_MS)
        return loss


class SlowStep(Plain):
    def configure_optimizers(self):
        return SlowOptimizer(self.parameters(), lr=0.01)


class SlowValidation(Plain):
    def validation_step(self, batch, batch_idx):
        wait(PLANTED_MS)


class SlowCallback(pl.Callback):
    def on_train_batch_end(self, *_):
        wait(PLANTED_MS)


class SlowLogger(pl.pytorch.loggers.CSVLogger):
    def log_metrics(self, metrics, step=None):
        wait(PLANTED_MS)
        super().log_metrics(metrics, step)


class LogsEveryStep(Plain):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss)
        return loss


class SlowSave(Plain):
    def on_save_checkpoint(self, checkpoint):
        wait(PLANTED_MS)


def plant(phase: str, tmp_path):
    """The module, loader and trainer options that wait 12 ms a step in one phase."""
    module, data, callbacks, options = Plain(), loader(8), [], {}
    if phase == "input_wait":
        data = loader(8, item_ms=PLANTED_MS / 2)
    elif phase == "h2d":
        module = SlowCopy()
    elif phase == "forward":
        module = Plain(forward_ms=PLANTED_MS)
    elif phase == "backward":
        module = Plain(backward_ms=PLANTED_MS)
    elif phase == "optimizer":
        module = SlowStep()
    elif phase == "validation":
        module = SlowValidation()
        options = {"val_check_interval": 1, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    elif phase == "checkpoint":
        module = SlowSave()
        callbacks = [pl.pytorch.callbacks.ModelCheckpoint(tmp_path / "saved", every_n_train_steps=1, save_top_k=-1)]
        options = {"enable_checkpointing": True}
    elif phase == "logging":
        module = LogsEveryStep()
        options = {"logger": SlowLogger(tmp_path / "logged"), "log_every_n_steps": 1}
    elif phase == "callbacks":
        callbacks = [SlowCallback()]
    return module, data, callbacks, options


@pytest.mark.parametrize("phase", PHASES)
def test_a_wait_lands_in_its_phase_and_in_no_other(phase, tmp_path, runs_dir, recorded):
    module, data, callbacks, options = plant(phase, tmp_path)
    held_out = loader(1) if phase == "validation" else None
    WAITED_MS.clear()
    trainer(runs_dir, *callbacks, **options).fit(module, data, held_out)
    run = recorded()
    quiet = {name: run.quiet_ms(name) for name in PHASES}
    assert -0.1 <= run.quiet_excess_ms(phase, WAITED_MS) <= (10 if phase == "checkpoint" else 4)
    del quiet[phase]
    assert all(spent_ms < 4 for spent_ms in quiet.values()), quiet
    assert run.quiet_ms("unattributed") < 2


def test_a_slow_callback_is_named(runs_dir, recorded):
    WAITED_MS.clear()
    trainer(runs_dir, SlowCallback()).fit(Plain(), loader())
    run = recorded()
    assert sum(WAITED_MS) <= run.owners["callbacks", "SlowCallback"] <= run.total_ms("callbacks") + 1e-3


def test_hooks_that_only_an_instance_has_are_measured(runs_dir, recorded):
    lambdas = pl.pytorch.callbacks.LambdaCallback
    idle, slow = lambdas(on_train_end=lambda *_: None), lambdas(on_train_batch_end=lambda *_: wait(PLANTED_MS))
    WAITED_MS.clear()
    trainer(runs_dir, idle, slow).fit(Plain(), loader())
    run = recorded()
    assert sum(WAITED_MS) <= run.owners["callbacks", "LambdaCallback"] <= run.total_ms("callbacks") + 1e-3


def test_the_sanity_check_is_validation(runs_dir, recorded):
    trainer(runs_dir, num_sanity_val_steps=2).fit(SlowValidation(), loader(2), loader(2))
    assert recorded().total_ms("validation") >= 4 * PLANTED_MS  # two batches of the check, two at the epoch's end


def test_training_goes_on_after_a_validation_in_the_middle_of_an_epoch(runs_dir, recorded):
    module = Plain(forward_ms=PLANTED_MS)
    trainer(runs_dir, val_check_interval=2, limit_val_batches=1, num_sanity_val_steps=0).fit(
        module, loader(6), loader(1)
    )
    run = recorded()
    assert min(run.steps["forward_ns"]) >= PLANTED_MS * 1e6  # at every step, also after a validation
    assert run.quiet_ms("forward") < PLANTED_MS + 4
    assert run.total_ms("validation") >= 3 * PLANTED_MS


def test_restarted_workers_are_the_loaders_start_and_no_wait_for_data(runs_dir, recorded):
    trainer(runs_dir, max_epochs=3).fit(Plain(), loader(3, num_workers=1))
    run = recorded()
    assert run.total_ms("loader_start") > 3 * run.total_ms("input_wait")


@pytest.mark.flaky(reruns=2)
def test_rows_partition_the_time_and_cover_the_fit(runs_dir, recorded):
    # 10 ms steps of waiting in every phase: the shape of a healthy run
    module = Plain(forward_ms=5, backward_ms=4)
    ready = trainer(runs_dir)
    began = time.perf_counter_ns()
    ready.fit(module, loader(300))
    around_ns = time.perf_counter_ns() - began
    run = recorded()
    parts = sum(run.rows[name] for name in run.rows if name.endswith("_ns") and _is_part(name))
    assert (parts == run.rows["interval_ns"]).all()
    report_ns = (run.summary.telemetry.report_s or 0) * 1e9
    assert run.rows["interval_ns"].sum() + report_ns >= 0.99 * around_ns
    assert run.summary.time_budget.coverage_share >= 0.99
    assert run.steps["unattributed_ns"].sum() <= 0.06 * run.steps["interval_ns"].sum()


def test_samples_are_counted(runs_dir, recorded):
    trainer(runs_dir, accumulate_grad_batches=2).fit(Plain(), loader(8))
    assert list(recorded().steps["samples"]) == [4.0] * 4


def test_weights_are_the_same_with_and_without(runs_dir):
    trained = []
    for settings in (False, None):
        torch.manual_seed(3)
        module = Plain()
        trainer(runs_dir, settings=settings).fit(module, loader())
        trained.append(module.layer.weight.detach().clone())
    assert torch.equal(*trained)


def _is_part(name: str) -> bool:
    return name not in ("started_ns", "interval_ns") and not name.startswith("device_")


@pytest.mark.parametrize("checked_every", [1.0, 0.5])
def test_a_validation_of_nothing_takes_no_time(checked_every, runs_dir, recorded):
    module = Plain(forward_ms=PLANTED_MS)
    trainer(runs_dir, max_epochs=2, val_check_interval=checked_every).fit(module, loader(4), loader(0))
    run = recorded()
    assert min(run.steps["forward_ns"]) >= PLANTED_MS * 1e6
    assert run.total_ms("validation") < PLANTED_MS
