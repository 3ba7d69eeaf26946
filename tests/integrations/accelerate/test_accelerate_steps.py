"""What counts as one step of an Accelerate loop."""

from __future__ import annotations

import itertools

import pytest
import torch
from accelerate import Accelerator
from accelerate_loops import Model, Samples, make_loader, train_epoch

from traceml_core.core.phases import Phase
from traceml_core.instrumentation import phase_clock
from traceml_hf.accelerate import TraceMLCallback


def test_an_accumulation_window_is_one_step_of_its_micro_batches(sessions):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters()), make_loader())
        train_epoch(accelerator, model, optimizer, loader)
    steps = sessions[0].numbered
    assert [record.micro_batches for record in steps] == [4, 2]
    assert [record.samples for record in steps] == [16, 8]
    assert sessions[0].facts.accumulation == 4
    assert sessions[0].described["batch_size"] == 4


def test_the_last_batch_is_counted_with_its_own_size(accelerator, sessions):
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(
            model, torch.optim.SGD(model.parameters()), make_loader(count=10)
        )
        train_epoch(accelerator, model, optimizer, loader)
    assert [record.samples for record in sessions[0].numbered] == [4, 4, 2]


def test_a_long_loop_that_never_steps_does_not_pile_up_moments(accelerator, sessions, monkeypatch):
    monkeypatch.setattr(phase_clock, "MOMENTS_LIMIT", 100)
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(
            model, torch.optim.SGD(model.parameters()), make_loader(count=400)
        )
        for number, (inputs, _) in enumerate(loader):
            accelerator.backward(model(inputs).sum())
            if number < 5:
                optimizer.step()
            elif number == 90:
                taken = sessions[0].clock.take()
    assert len(taken.moves) + sum(len(moments) for _, moments in taken.pieces) < 200


def test_tokens_are_counted_where_the_batch_shows_them(accelerator, sessions):
    model = torch.nn.Embedding(10, 2)
    data = [{"input_ids": torch.arange(5), "labels": torch.tensor(1)} for _ in range(6)]
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(
            model, torch.optim.SGD(model.parameters()), torch.utils.data.DataLoader(data, batch_size=3)
        )
        for batch in loader:
            accelerator.backward(model(batch["input_ids"]).sum())
            optimizer.step()
    assert [(record.samples, record.tokens) for record in sessions[0].numbered] == [(3, 15), (3, 15)]


def adversarial_models(accelerator):
    first, second = Model(), Model()
    return accelerator.prepare(first, second, torch.optim.SGD(first.parameters()), torch.optim.SGD(second.parameters()))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_optimizers_in_a_window_are_one_step_in_whichever_order(accelerator, sessions, order):
    with TraceMLCallback().attach(accelerator):
        *both, first_optimizer, second_optimizer = adversarial_models(accelerator)
        optimizers = first_optimizer, second_optimizer
        loader = accelerator.prepare(make_loader())
        for inputs, _ in loader:
            for place in order:
                accelerator.backward(both[place](inputs).sum())
                optimizers[place].step()
                optimizers[place].zero_grad()
    steps = sessions[0].numbered
    assert len(steps) == 6
    assert [(record.micro_batches, record.samples) for record in steps] == [(1, 4)] * 6


def test_a_second_loader_read_between_two_optimizers_does_not_split_the_step(accelerator, sessions):
    with TraceMLCallback().attach(accelerator):
        discriminator, generator, first_optimizer, second_optimizer = adversarial_models(accelerator)
        images, noise = accelerator.prepare(make_loader(), make_loader())
        noises = iter(noise)
        for inputs, _ in images:
            accelerator.backward(discriminator(inputs).sum())
            first_optimizer.step()
            accelerator.backward(generator(next(noises)[0]).sum())
            second_optimizer.step()
    assert len(sessions[0].numbered) == 6


def test_an_optimizer_that_steps_every_third_batch_only_leaves_one_step_a_batch(accelerator, sessions):
    with TraceMLCallback().attach(accelerator):
        critic, generator, first_optimizer, second_optimizer = adversarial_models(accelerator)
        loader = accelerator.prepare(make_loader())
        for number, (inputs, _) in enumerate(loader):
            accelerator.backward(critic(inputs).sum())
            first_optimizer.step()
            if number % 3 == 2:
                accelerator.backward(generator(inputs).sum())
                second_optimizer.step()
    assert len(sessions[0].numbered) == 6


def test_two_loaders_read_together_are_one_step(accelerator, sessions):
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, labelled, unlabelled = accelerator.prepare(
            model, torch.optim.SGD(model.parameters()), make_loader(), make_loader()
        )
        for (inputs, _), (others, _) in zip(labelled, unlabelled, strict=True):
            accelerator.backward(model(torch.cat([inputs, others])).sum())
            optimizer.step()
    steps = sessions[0].numbered
    assert [(record.micro_batches, record.samples) for record in steps] == [(1, 8)] * 6


def test_loaders_taken_in_turn_are_one_step_each(accelerator, sessions):
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, first, second = accelerator.prepare(
            model, torch.optim.SGD(model.parameters()), make_loader(), make_loader()
        )
        for pair in zip(first, second, strict=True):
            del pair
            break
        for batches in itertools.zip_longest(iter(first), iter(second)):
            del batches
            break
        turns = [iter(first), iter(second)]
        for number in range(8):
            inputs, _ = next(turns[number % 2])
            accelerator.backward(model(inputs).sum())
            optimizer.step()
    assert len(sessions[0].numbered) == 8


def test_several_updates_on_one_batch_are_one_step(accelerator, sessions):
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters()), make_loader())
        for inputs, _ in loader:
            for _ in range(3):
                accelerator.backward(model(inputs).sum())
                optimizer.step()
    assert [(record.step, record.samples) for record in sessions[0].numbered] == [(n, 4) for n in range(1, 7)]


def test_a_loop_that_is_broken_off_ends_its_last_step_there(accelerator, sessions):
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters()), make_loader())
        for number, (inputs, _) in enumerate(loader):
            accelerator.backward(model(inputs).sum())
            optimizer.step()
            if number == 2:
                break
        assert sessions[0].steps.steps_done == 3
        train_epoch(accelerator, model, optimizer, loader)
    assert len(sessions[0].numbered) == 3 + 6


def test_without_a_prepared_loader_a_step_begins_with_its_forward_and_input_wait_is_unmeasured(accelerator, sessions):
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters()))
        for _ in range(5):
            accelerator.backward(model(torch.zeros(4, 8)).sum())
            optimizer.step()
    (session,) = sessions
    assert len(session.numbered) == 5
    assert "input_wait" in session.described["unmeasured"]


def test_a_backward_behind_the_accelerators_back_is_unmeasured_and_the_steps_still_count(accelerator, sessions):
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters()), make_loader())
        for inputs, _ in loader:
            model(inputs).sum().backward()
            optimizer.step()
    (session,) = sessions
    assert len(session.numbered) == 6
    assert "backward" in session.described["unmeasured"]


def test_skipped_first_batches_are_watched_too(accelerator, sessions):
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters()), make_loader())
        train_epoch(accelerator, model, optimizer, accelerator.skip_first_batches(loader, 2))
    (session,) = sessions
    assert [record.samples for record in session.numbered] == [4] * 4
    assert session.seconds(Phase.INPUT_WAIT) > 0


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return (Samples()[index] for index in range(24))


@pytest.mark.parametrize("dispatch", [True, False])
def test_an_iterable_dataset_is_followed_dispatched_or_not(sessions, dispatch):
    from accelerate.utils import DataLoaderConfiguration

    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=dispatch))
    model = Model()
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(
            model, torch.optim.SGD(model.parameters()), torch.utils.data.DataLoader(Stream(), batch_size=4)
        )
        train_epoch(accelerator, model, optimizer, loader)
    (session,) = sessions
    assert [record.samples for record in session.numbered] == [4] * 6
    assert session.seconds(Phase.INPUT_WAIT) > 0


def test_an_out_of_memory_error_that_the_loop_survives_leaves_the_next_steps_right(accelerator, sessions, time_passes):
    model = Model(forward_s=0.01)
    with TraceMLCallback().attach(accelerator):
        model, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters()), make_loader())
        raising = optimizer.optimizer.register_step_pre_hook(lambda *_: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(MemoryError):
            train_epoch(accelerator, model, optimizer, loader)
        raising.remove()
        train_epoch(accelerator, model, optimizer, loader)
    (session,) = sessions
    assert len(session.numbered) == 6
    assert session.seconds(Phase.FORWARD) == pytest.approx(0.07, abs=1e-5)
    assert session.seconds(Phase.OPTIMIZER) < 1e-5
