"""Gradient arrival: backward is split where this rank's own gradients are done."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import time

import pytest
import torch
from torch import nn
from waiting import LIMIT_S

from traceml_core.instrumentation.gradient_arrival import DECIDED_AFTER, GradientArrival

DELAY_MS = 30
STEPS = 10
TWO_RANKS = """
import json, os, sys, time
from datetime import timedelta
import torch
import torch.distributed as dist
from traceml_core.core.phases import Phase
from traceml_core.instrumentation.gradient_arrival import GradientArrival
from traceml_core.instrumentation.phase_clock import PhaseClock

class Wait(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, delay_s):
        ctx.delay_s = delay_s
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(ctx.delay_s)
        return gradient, None

class Model(torch.nn.Module):
    def __init__(self, delay_s):
        super().__init__()
        self.first, self.last, self.delay_s = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8), delay_s

    def forward(self, x):
        return self.last(Wait.apply(self.first(x), self.delay_s))

rank, folder, delay_s, steps = int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
store = dist.FileStore(os.path.join(folder, "store"), 2)
dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(minutes=5))
model = torch.nn.parallel.DistributedDataParallel(Model(delay_s if rank == 1 else 0.0))
arrival = GradientArrival.attach(model)
clock = PhaseClock()
clock.leave(Phase.STARTUP)
spent_ms = []
for step in range(steps + 2):
    clock.take()
    loss = model(torch.randn(4, 8)).sum()
    dist.barrier()
    clock.enter(Phase.BACKWARD)
    loss.backward()
    clock.book(Phase.GRAD_SYNC, arrival.take())
    clock.leave(Phase.BACKWARD)
    spent_ns = clock.take().spent_ns
    spent_ms.append((spent_ns[Phase.BACKWARD] / 1e6, spent_ns[Phase.GRAD_SYNC] / 1e6))
print(json.dumps(spent_ms[2:]), flush=True)  # the first ones set up their buckets
dist.barrier()
os._exit(0)  # gloo's threads now and then abort a process that takes its group down
"""


class Wait(torch.autograd.Function):
    """Passes gradients on after a wait."""

    @staticmethod
    def forward(ctx, x, delay_s):
        ctx.delay_s = delay_s
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(ctx.delay_s)
        return gradient, None


def make_model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def train_once(model: nn.Module) -> tuple[int, int]:
    began_ns = time.perf_counter_ns()
    model(torch.randn(3, 4)).sum().backward()
    return began_ns, time.perf_counter_ns()


def test_the_arrival_lies_within_the_backward_and_is_taken_once():
    model = make_model()
    arrival = GradientArrival.attach(model)
    began_ns, ended_ns = train_once(model)
    assert began_ns < arrival.take() < ended_ns
    assert arrival.take() is None


def test_it_is_the_last_gradient_of_the_backward_that_is_stamped():
    first, last = nn.Linear(4, 4), nn.Linear(4, 2)
    arrival = GradientArrival.attach(nn.Sequential(first, last))
    loss = last(Wait.apply(first(torch.randn(3, 4)), DELAY_MS / 1e3)).sum()
    began_ns = time.perf_counter_ns()
    loss.backward()
    assert arrival.take() - began_ns >= DELAY_MS * 1e6


def test_parameters_that_are_not_trained_are_passed_over():
    model = make_model()
    model[0].requires_grad_(False)
    arrival = GradientArrival.attach(model)
    train_once(model)
    assert arrival.take() is not None


def test_who_wants_to_know_as_well_is_told_at_each_arrival():
    told: list[int] = []
    model = make_model()
    GradientArrival.attach(model, lambda: told.append(time.perf_counter_ns()))
    train_once(model)
    assert len(told) == 2


class Branches(nn.Module):
    """Two layers beside each other; the first comes into a step or does not."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.uses_first = nn.Linear(4, 2, bias=False), nn.Linear(4, 2, bias=False), True

    def forward(self, x):
        return (self.first(x) if self.uses_first else 0) + self.second(x)


def test_only_the_parameter_that_comes_last_each_time_stays_watched():
    told: list[int] = []
    model = Branches()
    arrival = GradientArrival.attach(model, lambda: told.append(1))
    for _ in range(DECIDED_AFTER + 3):
        train_once(model)
        assert arrival.take() is not None
    assert len(told) == 2 * DECIDED_AFTER + 3


def test_one_that_does_not_come_any_more_has_both_watched_again():
    model = Branches()
    arrival = GradientArrival.attach(model)
    for _ in range(DECIDED_AFTER):
        train_once(model)
        arrival.take()
    model.uses_first = False
    train_once(model)
    assert arrival.take() is None
    for model.uses_first in (False, True, False):
        train_once(model)
        assert arrival.take() is not None


def test_where_the_order_changes_both_stay_watched():
    told: list[int] = []
    model = Branches()
    arrival = GradientArrival.attach(model, lambda: told.append(1))
    for step in range(3 * DECIDED_AFTER):
        model.uses_first = step != 5
        train_once(model)
        assert arrival.take() is not None
    assert len(told) == 6 * DECIDED_AFTER - 1


def test_after_detaching_nothing_is_stamped():
    model = make_model()
    arrival = GradientArrival.attach(model)
    arrival.detach()
    arrival.detach()
    train_once(model)
    assert arrival.take() is None


def test_a_watched_model_can_still_be_copied_pickled_and_saved(tmp_path):
    model = make_model()
    arrival = GradientArrival.attach(model)
    pickle.loads(pickle.dumps(model))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    train_once(copy.deepcopy(model))
    assert arrival.take() is None


def test_gradients_are_what_they_are_without():
    models = [make_model() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    GradientArrival.attach(models[1])
    batch = torch.randn(3, 4)
    for model in models:
        model(batch).sum().backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(*(model.parameters() for model in models), strict=True))


class FullyShardedDataParallel(nn.Module):
    """By this name FSDP's module is known; it keeps views of its flat parameter where the originals were."""

    def __init__(self):
        super().__init__()
        self.module = make_model()


class DeepSpeedEngine(FullyShardedDataParallel):
    """By this name DeepSpeed's is."""


def frozen() -> nn.Module:
    return make_model().requires_grad_(False)


def partitioned() -> nn.Module:
    model = make_model()
    next(model.parameters()).ds_id = 0
    return model


@pytest.mark.parametrize(
    "make", [FullyShardedDataParallel, DeepSpeedEngine, lambda: nn.Sequential(DeepSpeedEngine()), frozen, partitioned]
)
def test_where_the_split_would_not_be_sound_nothing_is_watched(make):
    assert GradientArrival.attach(make()) is None


def test_sharded_tensors_are_not_watched(tmp_path):
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = make_model()
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        assert GradientArrival.attach(model) is None
    finally:
        distributed.destroy_process_group()


def test_two_ranks_show_whose_backward_is_slow_and_who_waits_for_it(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_RANKS, str(rank), str(tmp_path), str(DELAY_MS / 1e3), str(STEPS)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        told = [rank.communicate(timeout=LIMIT_S) for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], [errors[-2000:] for _, errors in told]
        spent_ms = [json.loads(said) for said, _ in told]
    finally:
        for rank in ranks:
            rank.kill()
    (own_0, sync_0), (own_1, sync_1) = (zip(*steps, strict=True) for steps in spent_ms)
    assert min(own_1) >= DELAY_MS
    # A busy machine delays the other rank as well, at some steps: the quietest step shows what the split makes of it.
    assert min(own_0) < DELAY_MS / 2 and max(sync_0) >= DELAY_MS * 0.7 and min(sync_1) < DELAY_MS / 2
