"""What the trainings of several ranks share: each step waits a few milliseconds, and one rank longer, in one phase.

A cause is a phase, of which rank 1 waits 40 ms more at every step; `rotating`, where another rank does so in its
forward at every step; or `equal`. A script trains once for each cause in its arguments, into the folder of that name.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import patience
import torch

patience.wait_patiently()
LATE = 1
PLANTED_MS = 40.0
STEPS = 40
BATCH = 2
RANKS = int(os.environ.get("WORLD_SIZE", "2"))
_planted = ""


def causes() -> Iterator[str]:
    """The causes to train with, one after the other; each is planted until the next is asked for."""
    global _planted
    for cause in sys.argv[1:]:
        _planted = cause
        yield cause


def wait(milliseconds: float, phase: str, step: int = 0) -> None:
    """Wait, and longer where this is the place."""
    late, where = (step % RANKS, "forward") if _planted == "rotating" else (LATE, _planted)
    is_late = phase == where and torch.distributed.is_initialized() and torch.distributed.get_rank() == late
    time.sleep((milliseconds + (PLANTED_MS if is_late else 0.0)) / 1e3)


class Batch(dict):
    """A batch that takes its time to go to a device."""

    def to(self, device: object, non_blocking: bool = False) -> Batch:
        wait(0.0, "h2d")
        return self


class Samples(torch.utils.data.Dataset):
    """As many as all ranks need for their steps."""

    def __len__(self) -> int:
        return STEPS * BATCH * RANKS

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"features": torch.full((4,), float(index % 5)), "labels": torch.tensor(index % 2)}


def collate(samples: list[dict[str, torch.Tensor]]) -> Batch:
    wait(1.0, "input_wait")
    return Batch(torch.utils.data.default_collate(samples))


class Network(torch.nn.Module):
    """Two layers; the wait in backward lies between them, so that the last gradient comes after it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
        self.step = 0

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        wait(4.0, "forward", self.step)
        self.step += 1
        hidden = self.first(features)
        if hidden.requires_grad:
            hidden.register_hook(lambda _: wait(4.0, "backward"))
        logits = self.last(hidden)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}
