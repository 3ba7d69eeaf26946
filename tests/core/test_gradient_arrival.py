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

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.gradient_arrival import split_backward
from traceml_core.instrumentation.phase_clock import PhaseClock

DELAY_MS = 30
STEPS = 10
TWO_RANKS = """
import json, os, sys, time
from datetime import timedelta
import torch
import torch.distributed as dist
from traceml_core.core.phases import Phase
from traceml_core.instrumentation.gradient_arrival import split_backward
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
clock = PhaseClock()
split_backward(model, clock)
clock.leave(Phase.STARTUP)
spent_ms = []
for step in range(steps + 2):
    clock.take()
    loss = model(torch.randn(4, 8)).sum()
    dist.barrier()
    clock.enter(Phase.BACKWARD)
    loss.backward()
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


class Branches(nn.Module):
    """Two layers beside each other; the first comes into a step or does not."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.uses_first = nn.Linear(4, 2, bias=False), nn.Linear(4, 2, bias=False), True

    def forward(self, x):
        return (self.first(x) if self.uses_first else 0) + self.second(x)


def backward_ns(model: nn.Module, clock: PhaseClock) -> tuple[int, int]:
    """The nanoseconds of a backward of the model up to its last gradient, and those after it."""
    loss = model(torch.randn(3, 4)).sum()
    clock.take()
    clock.enter(Phase.BACKWARD)
    loss.backward()
    clock.leave(Phase.BACKWARD)
    spent_ns = clock.take().spent_ns
    return spent_ns[Phase.BACKWARD], spent_ns[Phase.GRAD_SYNC]


@pytest.fixture
def clock() -> PhaseClock:
    clock = PhaseClock()
    clock.leave(Phase.STARTUP)
    return clock


def test_a_backward_is_split_between_its_begin_and_its_end(clock):
    model = make_model()
    split_backward(model, clock)
    own_ns, sync_ns = backward_ns(model, clock)
    assert own_ns > 0 and sync_ns > 0


def test_it_is_the_last_gradient_of_the_backward_that_splits_it(clock):
    first, last = nn.Linear(4, 4), nn.Linear(4, 2)
    split_backward(nn.Sequential(first, last), clock)
    own_ns, sync_ns = backward_ns(lambda x: last(Wait.apply(first(x), DELAY_MS / 1e3)), clock)
    assert own_ns >= DELAY_MS * 1e6 and 0 < sync_ns < DELAY_MS * 1e6 / 2


def test_parameters_that_are_not_trained_are_passed_over(clock):
    model = make_model()
    model[0].requires_grad_(False)
    split_backward(model, clock)
    assert backward_ns(model, clock)[1] > 0


def test_a_device_is_told_of_each_arrival_too(clock):
    told: list[int] = []
    model = make_model()
    split_backward(model, clock, lambda: told.append(1))
    assert backward_ns(model, clock)[1] > 0
    assert len(told) == 2


@pytest.mark.parametrize("uses_first", [True, False])
def test_a_parameter_that_does_not_come_into_a_backward_is_not_waited_for(clock, uses_first):
    model = Branches()
    split_backward(model, clock)
    model.uses_first = uses_first
    assert backward_ns(model, clock)[1] > 0


def test_two_models_in_one_backward_split_it_at_the_last_gradient_of_both(clock):
    first, last = nn.Linear(4, 4), nn.Linear(4, 2)
    for model in (last, first):
        split_backward(model, clock)
    own_ns, sync_ns = backward_ns(lambda x: last(Wait.apply(first(x), DELAY_MS / 1e3)), clock)
    assert own_ns >= DELAY_MS * 1e6 and 0 < sync_ns < DELAY_MS * 1e6 / 2


def test_after_its_end_nothing_is_split(clock):
    model = make_model()
    end = split_backward(model, clock)
    end()
    end()
    assert backward_ns(model, clock)[1] == 0


def test_a_watched_model_can_still_be_copied_pickled_and_saved(clock, tmp_path):
    model = make_model()
    split_backward(model, clock)
    pickle.loads(pickle.dumps(model))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    assert backward_ns(copy.deepcopy(model), clock)[1] == 0


def test_gradients_are_what_they_are_without(clock):
    models = [make_model() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    split_backward(models[1], clock)
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
def test_where_the_split_would_not_be_sound_nothing_is_watched(clock, make):
    assert split_backward(make(), clock) is None


def test_sharded_tensors_are_not_watched(clock, tmp_path):
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = make_model()
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        assert split_backward(model, clock) is None
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
