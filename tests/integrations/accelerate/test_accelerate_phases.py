"""Where the time of an Accelerate loop lands, by a clock that goes on with what is planted and stands still else."""

from __future__ import annotations

import accelerate_loops
import msgspec
import pytest
import torch
from accelerate import Accelerator
from accelerate_loops import Model, SlowSGD, evaluate, make_loader, train_epoch

from traceml_core.core.phases import Phase
from traceml_hf import accelerate_attachment
from traceml_hf.accelerate import TraceMLCallback

STEPS = 6
DELAY_S = 0.02
# What all the looks at the clock add up to.
SLACK_S = 1e-5


def test_each_planted_delay_lands_in_its_phase_and_none_is_unattributed(accelerator, sessions, tmp_path, time_passes):
    model = Model(forward_s=DELAY_S, backward_s=DELAY_S)
    optimizer = SlowSGD(model.parameters(), DELAY_S)
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(model, optimizer, make_loader(delay_s=DELAY_S / 4))
        train_epoch(accelerator, model, optimizer, loader)
        accelerator.save_state(tmp_path / "state", safe_serialization=False)

    (session,) = sessions
    for phase in (Phase.INPUT_WAIT, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER):
        assert session.seconds(phase) == pytest.approx(STEPS * DELAY_S, abs=SLACK_S), phase
    assert session.seconds(Phase.CHECKPOINT) > 0
    assert session.seconds(Phase.UNATTRIBUTED) < SLACK_S
    assert [record.step for record in session.numbered] == list(range(1, STEPS + 1))
    whole_s = sum(record.interval_ns for record in session.records) / 1e9
    assert whole_s == pytest.approx(4 * STEPS * DELAY_S, abs=SLACK_S)


def test_a_slow_collate_is_input_wait(accelerator, sessions, time_passes):
    def collate(samples):
        time_passes(DELAY_S)
        return torch.utils.data.default_collate(samples)

    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(
            model, torch.optim.SGD(model.parameters()), make_loader(collate_fn=collate)
        )
        train_epoch(accelerator, model, optimizer, loader)
    assert sessions[0].seconds(Phase.INPUT_WAIT) == pytest.approx(STEPS * DELAY_S, abs=SLACK_S)


def test_hooks_of_the_users_are_a_part_of_what_they_hang_on(accelerator, sessions, time_passes):
    def slowly(*_):
        time_passes(DELAY_S)

    model = Model()
    optimizer = torch.optim.SGD(model.parameters())
    model.register_forward_pre_hook(slowly)
    optimizer.register_step_pre_hook(slowly)
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(model, optimizer, make_loader())
        train_epoch(accelerator, model, optimizer, loader)
    for phase in (Phase.FORWARD, Phase.OPTIMIZER):
        assert sessions[0].seconds(phase) == pytest.approx(STEPS * DELAY_S, abs=SLACK_S), phase


class SlowToMove:
    """A batch that takes its time to go to a device."""

    def __init__(self, samples):
        self.tensors = torch.utils.data.default_collate(samples)

    def to(self, device, non_blocking=False):
        accelerate_loops.wait(DELAY_S)
        return self

    def __iter__(self):
        return iter(self.tensors)


@pytest.mark.parametrize("prepared_first", [True, False])
def test_the_copy_of_a_batch_to_the_device_is_h2d_and_belongs_to_the_step_that_uses_it(
    accelerator, sessions, prepared_first, time_passes
):
    model = Model()
    objects = model, torch.optim.SGD(model.parameters()), make_loader(collate_fn=SlowToMove)
    if prepared_first:
        objects = accelerator.prepare(*objects)
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = objects if prepared_first else accelerator.prepare(*objects)
        train_epoch(accelerator, model, optimizer, loader)
    copies_s = [record.spent_ns[Phase.H2D] / 1e9 for record in sessions[0].numbered]
    assert copies_s == pytest.approx([DELAY_S] * STEPS, abs=SLACK_S)
    assert loader.device == accelerator.device


def test_making_the_iterator_and_starting_workers_is_loader_start_at_every_epoch(accelerator, sessions):
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(
            model, torch.optim.SGD(model.parameters()), make_loader(num_workers=1)
        )
        for _ in range(2):
            train_epoch(accelerator, model, optimizer, loader)
    starts_ns = [record.spent_ns[Phase.LOADER_START] for record in sessions[0].numbered]
    assert starts_ns[0] > 3e6 and starts_ns[STEPS] > 3e6
    assert starts_ns[1] == starts_ns[STEPS + 1] == 0


def test_an_evaluation_between_epochs_is_validation_fetches_included(accelerator, sessions, time_passes):
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, training, validation = accelerator.prepare(
            model, torch.optim.SGD(model.parameters()), make_loader(), make_loader(count=12, delay_s=0.01)
        )
        for _ in range(2):
            train_epoch(accelerator, model, optimizer, training)
            evaluate(accelerator, model, validation)
    (session,) = sessions
    assert session.seconds(Phase.VALIDATION) == pytest.approx(2 * 12 * 0.01, abs=SLACK_S)
    assert session.seconds(Phase.INPUT_WAIT) < SLACK_S
    assert len(session.numbered) == 2 * STEPS


def test_an_evaluation_in_the_middle_of_an_epoch_leaves_the_step_count_alone(accelerator, sessions, time_passes):
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, training, validation = accelerator.prepare(
            model, torch.optim.SGD(model.parameters()), make_loader(), make_loader(count=8, delay_s=0.01)
        )
        train_epoch(
            accelerator,
            model,
            optimizer,
            training,
            after_step=lambda number: evaluate(accelerator, model, validation) if number == 2 else None,
        )
    (session,) = sessions
    assert len(session.numbered) == STEPS
    assert session.numbered[2].spent_ns[Phase.VALIDATION] / 1e9 == pytest.approx(0.08, abs=SLACK_S)
    assert session.numbered[3].spent_ns[Phase.VALIDATION] == 0


def test_an_evaluation_before_any_training_is_validation_from_its_second_batch_on(accelerator, sessions, time_passes):
    model = Model(forward_s=0.01)
    with TraceMLCallback().attach(accelerator):
        model, optimizer, training, validation = accelerator.prepare(
            model, torch.optim.SGD(model.parameters()), make_loader(), make_loader(count=40)
        )
        evaluate(accelerator, model, validation)
        train_epoch(accelerator, model, optimizer, training)
    (session,) = sessions
    assert session.seconds(Phase.VALIDATION) == pytest.approx(9 * 0.01, abs=SLACK_S)
    assert session.seconds(Phase.FORWARD) == pytest.approx((1 + STEPS) * 0.01, abs=SLACK_S)


def test_training_in_eval_mode_is_never_validation(accelerator, sessions, time_passes):
    model = Model(forward_s=0.005).eval()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, first, second = accelerator.prepare(
            model, torch.optim.SGD(model.parameters()), make_loader(), make_loader()
        )
        train_epoch(accelerator, model, optimizer, first)
        train_epoch(accelerator, model, optimizer, second)
    (session,) = sessions
    assert session.seconds(Phase.VALIDATION) == 0
    assert len(session.numbered) == 2 * STEPS


def test_a_loop_without_eval_or_no_grad_is_not_called_validation(accelerator, sessions, time_passes):
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, training, other = accelerator.prepare(
            model, torch.optim.SGD(model.parameters()), make_loader(), make_loader()
        )
        train_epoch(accelerator, model, optimizer, training)
        for inputs, _ in other:
            model(inputs)
    assert sessions[0].seconds(Phase.VALIDATION) == 0


def test_an_evaluation_over_a_loader_that_was_not_prepared_claims_its_forward_only(accelerator, sessions, time_passes):
    model = Model(forward_s=0.01)
    with TraceMLCallback().attach(accelerator):
        model, optimizer, training = accelerator.prepare(model, torch.optim.SGD(model.parameters()), make_loader())
        train_epoch(accelerator, model, optimizer, training)
        evaluate(accelerator, model, make_loader(count=16, delay_s=0.005))
    (session,) = sessions
    assert session.seconds(Phase.VALIDATION) == pytest.approx(4 * 0.01, abs=SLACK_S)
    assert session.seconds(Phase.UNATTRIBUTED) == pytest.approx(16 * 0.005, abs=SLACK_S)


def test_gradient_clipping_is_part_of_the_optimizer(accelerator, sessions, monkeypatch, time_passes):
    monkeypatch.setattr(type(accelerator), "clip_grad_norm_", lambda self, parameters, max_norm: time_passes(DELAY_S))
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters()), make_loader(count=4))
        for inputs, classes in loader:
            accelerator.backward(torch.nn.functional.cross_entropy(model(inputs), classes))
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    assert sessions[0].seconds(Phase.OPTIMIZER) == pytest.approx(DELAY_S, abs=SLACK_S)


def test_an_update_that_the_scaler_skips_is_a_step(sessions):
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu")
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters()), make_loader())
        optimizer.scaler = accelerator.scaler
        optimizer.__setstate__(optimizer.__dict__)
        skipped = []
        for inputs, classes in loader:
            loss = torch.nn.functional.cross_entropy(model(inputs), classes)
            accelerator.backward(loss * float("inf"))
            optimizer.step()
            optimizer.zero_grad()
            skipped.append(optimizer.step_was_skipped)
    assert all(skipped)
    assert len(sessions[0].numbered) == STEPS


class WaitAtTheEnd(torch.autograd.Function):
    """As DDP does it: once all gradients are there, backward waits for those of the other ranks."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        torch.autograd.Variable._execution_engine.queue_callback(lambda: accelerate_loops.wait(DELAY_S))
        return gradient


class DistributedDataParallel(torch.nn.Module):
    """By this name DDP's module is known."""

    def __init__(self):
        super().__init__()
        self.module = Model(backward_s=DELAY_S)

    def forward(self, inputs):
        return WaitAtTheEnd.apply(self.module(inputs))


class FullyShardedDataParallel(DistributedDataParallel):
    """By this name FSDP's is."""


def train_synchronised(accelerator, sessions, monkeypatch, *models):
    facts = accelerate_attachment.facts_of(accelerator)
    facts = msgspec.structs.replace(facts, unmeasured=("grad_sync",))
    monkeypatch.setattr(accelerate_attachment, "facts_of", lambda _: facts)
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(
            models[0], torch.optim.SGD(models[0].parameters(), lr=0.01), make_loader()
        )
        for other in models[1:]:
            accelerator.prepare_model(other)
        train_epoch(accelerator, model, optimizer, loader)
    return sessions[0]


def test_under_ddp_the_wait_for_other_ranks_is_split_from_backward(accelerator, sessions, monkeypatch, time_passes):
    session = train_synchronised(accelerator, sessions, monkeypatch, DistributedDataParallel())
    assert session.described["unmeasured"] == ()
    for phase in (Phase.BACKWARD, Phase.GRAD_SYNC):
        spent_s = [record.spent_ns[phase] / 1e9 for record in session.numbered]
        assert min(spent_s) >= DELAY_S, phase  # without a split, one of them would have both waits and the other none


def test_without_ddp_the_wait_stays_unmeasured(accelerator, sessions, monkeypatch, time_passes):
    session = train_synchronised(accelerator, sessions, monkeypatch, Model())
    assert "unmeasured" not in session.described
    assert session.seconds(Phase.GRAD_SYNC) == 0


def test_where_one_models_gradients_are_sharded_no_wait_is_told_apart(accelerator, sessions, monkeypatch, time_passes):
    sharded = FullyShardedDataParallel()
    sharded.add_module("inner", DistributedDataParallel())
    session = train_synchronised(accelerator, sessions, monkeypatch, DistributedDataParallel(), sharded)
    assert session.described["unmeasured"] == ("grad_sync",)
    assert session.seconds(Phase.GRAD_SYNC) == 0
