"""What the trainings of a pool do, under either tool: a step of timed waits, or one of real work."""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import torch

FEATURES, CLASSES = 64, 10


class Workload(NamedTuple):
    """How many steps of which batch and network; the waits in milliseconds, none of them in real work."""

    steps: int
    batch: int
    width: int
    input_wait_ms: float = 0.0
    forward_ms: float = 0.0
    backward_ms: float = 0.0
    optimizer_ms: float = 0.0

    @property
    def waits_ms(self) -> float:
        """All waits of a step."""
        return self.input_wait_ms + self.forward_ms + self.backward_ms + self.optimizer_ms

    def slower(self, share: float) -> Workload:
        """The same with a longer forward, by a share of all waits."""
        return self._replace(forward_ms=self.forward_ms + share * self.waits_ms)


TIMED = Workload(120, 16, 64, input_wait_ms=4.0, forward_ms=6.0, backward_ms=8.0, optimizer_ms=2.0)
REAL = Workload(500, 128, 512)


def add_workload_arguments(parser: argparse.ArgumentParser) -> None:
    """`--real` and `--slower`."""
    parser.add_argument("--real", action="store_true", help="a larger network's work, and no waits")
    parser.add_argument("--slower", type=float, default=0.0, help="share of a step's waits by which forward is longer")


def workload_of(arguments: argparse.Namespace) -> Workload:
    """The workload that the arguments ask for."""
    return REAL if arguments.real else TIMED.slower(arguments.slower)


def make_layers(width: int) -> torch.nn.Sequential:
    """The network, the same each time."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return torch.nn.Sequential(
        torch.nn.Linear(FEATURES, width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, CLASSES),
    )


def make_batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Made-up features and labels."""
    return torch.randn(size, FEATURES), torch.randint(0, CLASSES, (size,))


def wait(milliseconds: float) -> None:
    """Take so much time, and no processor."""
    if milliseconds > 0:
        time.sleep(milliseconds / 1e3)
