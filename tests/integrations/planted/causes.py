"""What the planted trainings share: data, a network and waits, switched on by the name of one cause."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import patience
import torch

patience.wait_patiently()
CAUSES = (
    "healthy",
    "accounted",
    "long_steps",
    "slow_dataset",
    "few_workers",
    "slow_collate",
    "heavy_forward",
    "heavy_backward",
    "heavy_optimizer",
    "slow_callback",
    "slow_checkpoints",
    "frequent_validation",
    "worker_restarts",
    "leaked_tensors",
    "leaked_objects",
)
BATCH = 8
FEATURES = 256


def train_each(train: Callable[[str], None], causes: list[str]) -> None:
    """Train with one cause after the other, each in a folder of its name."""
    for cause in causes:
        folder = Path(cause).absolute()
        folder.mkdir()
        os.chdir(folder)
        train(cause)
        os.chdir(folder.parent)


def tell_wall(began: float) -> None:
    """Write down how long the training took, by the script's own clock."""
    Path("wall_s").write_text(f"{time.perf_counter() - began:.4f}")


def busy(milliseconds: float) -> None:
    """Work on the CPU for this long."""
    until = time.perf_counter() + milliseconds / 1e3
    matrix = torch.ones(48, 48)
    while time.perf_counter() < until:
        matrix @ matrix


class Data(torch.utils.data.Dataset):
    """Made-up samples; slow to get where that is the cause."""

    def __init__(self, cause: str, batches: int) -> None:
        self.item_ms = {"slow_dataset": 2.0, "few_workers": 4.0}.get(cause, 0.0)
        self.length = batches * BATCH

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if self.item_ms:
            time.sleep(self.item_ms / 1e3)
        return {"features": torch.full((FEATURES,), index / self.length), "labels": torch.tensor(index % 10)}


def collate_slowly(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    time.sleep(0.015)
    return torch.utils.data.default_collate(items)


def steps(cause: str) -> int:
    """Batches in all: 100, and more where memory must be seen to creep or the whole time is to be accounted for.

    What is not accounted for lies around the training, and on a busy machine may be some tenths of a second.
    """
    if cause == "long_steps":
        return 30
    if cause == "accounted":
        return 1_000
    return 400 if cause.startswith("leaked") else 100


def epochs(cause: str) -> int:
    return 10 if cause == "worker_restarts" else 1


def loader_arguments(cause: str) -> dict[str, object]:
    workers = {"few_workers": 1, "worker_restarts": 2}.get(cause, 0)
    arguments: dict[str, object] = {"batch_size": BATCH, "num_workers": workers}
    if cause == "slow_collate":
        arguments["collate_fn"] = collate_slowly
    return arguments


class Network(torch.nn.Module):
    """About 10 ms a step in all; more in the phase that is to be heavy."""

    def __init__(self, cause: str) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(FEATURES, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
        usual_ms = 50.0 if cause == "long_steps" else 4.0
        self.forward_ms = 25.0 if cause == "heavy_forward" else usual_ms
        self.backward_ms = 25.0 if cause == "heavy_backward" else usual_ms
        self.kept: list[object] = []
        self.cause = cause

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.layers(features)
        if self.training:
            busy(self.forward_ms)
            logits.register_hook(lambda _: busy(self.backward_ms))
            self.keep()
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    def keep(self) -> None:
        """Leak, where that is the cause."""
        if self.cause == "leaked_tensors":
            self.kept.append(torch.ones(50_000))
        elif self.cause == "leaked_objects":
            self.kept.append([{"step": str(number), "values": [number] * 4} for number in range(400)])


class Optimizer(torch.optim.SGD):
    """SGD, heavy where that is the cause."""

    step_ms = 1.0

    def step(self, closure=None):
        result = super().step(closure)
        busy(self.step_ms)
        return result


def optimizer(network: torch.nn.Module, cause: str) -> Optimizer:
    made = Optimizer(network.parameters(), lr=0.01)
    made.step_ms = 25.0 if cause == "heavy_optimizer" else 1.0
    return made
