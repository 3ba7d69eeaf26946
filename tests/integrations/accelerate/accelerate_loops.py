"""Loops, models and a session that keeps its records in memory, for the Accelerate tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_record import StepRecord
from traceml_core.instrumentation.step_recorder import StepRecorder


def wait(seconds: float) -> None:
    """Take so long. The fixture `time_passes` puts in its place what lets a clock go on instead."""
    time.sleep(seconds)


class MemorySession:
    """An open run whose records stay in memory. `now` stands for the clock."""

    now: Callable[[], int] | None = None

    def __init__(self, settings, facts, identity=None, *, started_ns=None, store=None):
        self.enabled = settings.enabled
        self.folder = None
        self.facts = facts
        self.identity = identity
        self.clock = PhaseClock(started_ns=started_ns) if self.now is None else PhaseClock(self.now)
        self.steps = StepRecorder(self.clock)
        self.described: dict[str, Any] = {}
        self.status_at_exit = "interrupted"
        self.on_end = None
        self.ended: tuple[Any, ...] | None = None
        self.verdict = None

    def describe(self, **facts):
        self.described.update(facts)

    def live_verdict(self):
        return self.verdict

    def finish(self, status, error=None):
        if self.ended is None:
            self.ended = (status, error)
            self.on_end()
            self.clock.unwind()
            self.steps.finish()
        return self.verdict

    def close(self, status="completed", error=None):
        self.finish(status, error)

    @property
    def records(self) -> list[StepRecord]:
        return list(self.steps.queue)

    @property
    def numbered(self) -> list[StepRecord]:
        """The records of steps."""
        return [record for record in self.records if record.step is not None]

    def seconds(self, phase: Phase) -> float:
        """The whole run's time in a phase."""
        return sum(record.spent_ns[phase] for record in self.records) / 1e9


class Samples(Dataset):
    """`count` samples of eight numbers and a class; each takes `delay_s` to load."""

    def __init__(self, count: int = 24, delay_s: float = 0.0):
        self.count = count
        self.delay_s = delay_s

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if self.delay_s:
            wait(self.delay_s)
        return torch.full((8,), float(index)), index % 2


class SleepInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, delay_s):
        ctx.delay_s = delay_s
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        wait(ctx.delay_s)
        return gradient, None


class Model(torch.nn.Module):
    """A linear layer that takes `forward_s` forwards and `backward_s` backwards."""

    def __init__(self, forward_s: float = 0.0, backward_s: float = 0.0):
        super().__init__()
        self.layer = torch.nn.Linear(8, 2)
        self.forward_s = forward_s
        self.backward_s = backward_s

    def forward(self, inputs):
        if self.forward_s:
            wait(self.forward_s)
        outputs = self.layer(inputs)
        return SleepInBackward.apply(outputs, self.backward_s) if self.backward_s else outputs


class SlowSGD(torch.optim.SGD):
    """Plain gradient descent that takes `delay_s` to step."""

    def __init__(self, parameters, delay_s: float):
        super().__init__(parameters, lr=0.01)
        self.delay_s = delay_s

    def step(self, closure=None):
        wait(self.delay_s)
        return super().step(closure)


def make_loader(count: int = 24, delay_s: float = 0.0, batch_size: int = 4, **options) -> DataLoader:
    return DataLoader(Samples(count, delay_s), batch_size=batch_size, **options)


def train_epoch(accelerator, model, optimizer, loader, *, after_step: Callable[[int], None] | None = None):
    """One epoch of the loop that the Accelerate documentation shows."""
    for number, (inputs, classes) in enumerate(loader):
        with accelerator.accumulate(model):
            loss = torch.nn.functional.cross_entropy(model(inputs), classes)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        if after_step is not None:
            after_step(number)


def evaluate(accelerator, model, loader):
    model.eval()
    with torch.no_grad():
        for inputs, _ in loader:
            accelerator.gather_for_metrics(model(inputs))
    model.train()
