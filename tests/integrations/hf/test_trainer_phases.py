"""Where time planted in a Trainer's run lands."""

from __future__ import annotations

import time

import pytest
import torch
from trainer_models import WAITED_MS, Samples, Tiny, trainer, wait
from transformers import Trainer, TrainerCallback

PLANTED_MS = 12.0
PHASES = ("input_wait", "forward", "backward", "optimizer", "validation", "checkpoint", "callbacks")


class SlowOptimizer(torch.optim.SGD):
    def step(self, closure=None):
        loss = super().step(closure)
        wait(PLANTED_MS)
        return loss


class SlowCallback(TrainerCallback):
    def on_step_end(self, *_, **__):
        wait(PLANTED_MS)


class SlowInEval(Tiny):
    def forward(self, features, labels):
        if not self.training:
            wait(PLANTED_MS)
        return super().forward(features, labels)


class SlowState(Tiny):
    def state_dict(self, *arguments, **options):
        wait(PLANTED_MS)
        return super().state_dict(*arguments, **options)


def plant(phase: str):
    """Keyword arguments of a trainer that waits 12 ms a step in one phase."""
    if phase == "input_wait":
        return {"data": Samples(16, item_ms=PLANTED_MS / 2)}, []
    if phase == "optimizer":
        model = Tiny()
        return {"model": model, "parts": {"optimizers": (SlowOptimizer(model.parameters(), lr=0.01), None)}}, []
    if phase == "validation":
        evaluates = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 2}
        return {"model": SlowInEval(), "parts": {"eval_dataset": Samples(2)}, **evaluates}, []
    if phase == "checkpoint":
        return {"model": SlowState(), "save_strategy": "steps", "save_steps": 1}, []
    if phase == "callbacks":
        return {}, [SlowCallback()]
    return {"model": Tiny(**{f"{phase}_ms": PLANTED_MS})}, []


@pytest.mark.parametrize("phase", PHASES)
def test_a_wait_lands_in_its_phase_and_in_no_other(phase, tmp_path, recorded):
    options, callbacks = plant(phase)
    WAITED_MS.clear()
    trainer(tmp_path, *callbacks, **{"data": Samples(16), **options}).train()
    run = recorded()
    quiet = {name: run.quiet_ms(name) for name in PHASES}
    # The loader reads one batch ahead: the first two come before the first step, and the last step waits for none.
    waited_ms = [0.0, 0.0, *WAITED_MS[4:], 0.0, 0.0] if phase == "input_wait" else WAITED_MS
    assert -0.1 <= run.quiet_excess_ms(phase, waited_ms) <= (10 if phase == "checkpoint" else 5)
    del quiet[phase]
    assert all(spent_ms < 5 for spent_ms in quiet.values()), quiet
    assert run.quiet_ms("unattributed") < 2


def test_a_slow_callback_is_named(tmp_path, recorded):
    WAITED_MS.clear()
    trainer(tmp_path, SlowCallback()).train()
    run = recorded()
    assert sum(WAITED_MS) <= run.owners["callbacks", "SlowCallback"] <= run.total_ms("callbacks") + 1e-3


class SlowLoss(Trainer):
    def compute_loss(self, *arguments, **options):
        wait(PLANTED_MS)
        return super().compute_loss(*arguments, **options)


class SlowTrainingStep(Trainer):
    def training_step(self, *arguments, **options):
        loss = super().training_step(*arguments, **options)
        wait(PLANTED_MS)
        return loss


class SlowBatches(Trainer):
    def get_batch_samples(self, *arguments, **options):
        wait(PLANTED_MS / 2)
        found = super().get_batch_samples(*arguments, **options)
        wait(PLANTED_MS / 2)
        return found


@pytest.mark.parametrize("kind", [SlowLoss, SlowTrainingStep, SlowBatches])
def test_what_a_subclass_adds_is_unattributed(kind, tmp_path, recorded):
    WAITED_MS.clear()
    trainer(tmp_path, kind=kind).train()
    run = recorded()
    waited_ms = WAITED_MS[2:] if kind is SlowBatches else WAITED_MS  # the first window comes before the first step
    assert run.total_ms("unattributed") >= sum(waited_ms)
    assert run.quiet_ms("unattributed") < PLANTED_MS + 3
    quiet = {phase: run.quiet_ms(phase) for phase in PHASES}
    assert all(spent_ms < 4 for spent_ms in quiet.values()), quiet


def test_restarted_workers_are_the_loaders_start(tmp_path, recorded):
    trainer(tmp_path, num_train_epochs=3, dataloader_num_workers=1).train()
    run = recorded()
    assert run.total_ms("loader_start") > 3 * run.total_ms("input_wait")


@pytest.mark.flaky(reruns=2)
def test_rows_partition_the_time_and_cover_the_training(tmp_path, recorded):
    # Long beside what a busy machine adds around it.
    ready = trainer(tmp_path, model=Tiny(forward_ms=5, backward_ms=4), data=Samples(1_800))
    began = time.perf_counter_ns()
    ready.train()
    around_ns = time.perf_counter_ns() - began
    run = recorded()
    kinds = [name for name in run.rows if name.endswith("_ns") and not name.startswith("device_")]
    parts = sum(run.rows[name] for name in kinds if name not in ("started_ns", "interval_ns"))
    assert (parts == run.rows["interval_ns"]).all()
    report_ns = (run.summary.telemetry.report_s or 0) * 1e9
    assert run.rows["interval_ns"].sum() + report_ns >= 0.99 * around_ns
    assert run.summary.time_budget.coverage_share >= 0.99
    assert run.steps["unattributed_ns"].sum() <= 0.08 * run.steps["interval_ns"].sum()


def test_samples_are_counted_over_accumulated_micro_batches(tmp_path, recorded):
    trainer(tmp_path, gradient_accumulation_steps=3).train()
    run = recorded()
    assert list(run.steps["micro_batches"]) == [3, 3]
    assert list(run.steps["samples"]) == [6.0, 6.0]


def test_weights_are_the_same_with_and_without(tmp_path):
    trained = []
    for settings in (False, None):
        torch.manual_seed(3)
        model = Tiny()
        trainer(tmp_path, model=model, settings=settings).train()
        trained.append(model.layer.weight.detach().clone())
    assert torch.equal(*trained)


class SlowStart(Trainer):
    def create_optimizer(self, *arguments, **options):
        wait(PLANTED_MS * 20)
        return super().create_optimizer(*arguments, **options)


def test_an_evaluation_before_the_first_step_leaves_the_start_up_what_it_is(tmp_path, recorded):
    options = {"eval_strategy": "epoch", "eval_on_start": True}
    trainer(tmp_path, kind=SlowStart, parts={"eval_dataset": Samples(4)}, model=SlowInEval(), **options).train()
    run = recorded()
    assert run.total_ms("startup") >= PLANTED_MS * 20
    assert PLANTED_MS * 2 <= run.total_ms("validation") < PLANTED_MS * 20
