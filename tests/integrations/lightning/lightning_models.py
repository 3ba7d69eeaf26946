"""Tiny Lightning modules, loaders and trainers."""

from __future__ import annotations

import time
from typing import Any

import lightning as pl
import torch

from traceml_lightning import TraceMLCallback

WAITED_MS: list[float] = []


def wait(milliseconds: float) -> None:
    """Wait, and note how long that was: a busy machine wakes nobody in time."""
    began = time.perf_counter_ns()
    time.sleep(milliseconds / 1e3)
    WAITED_MS.append((time.perf_counter_ns() - began) / 1e6)


class Plain(pl.LightningModule):
    """One linear layer; subclasses wait where a test wants them to."""

    def __init__(self, forward_ms: float = 0.0, backward_ms: float = 0.0) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
        self.forward_ms, self.backward_ms = forward_ms, backward_ms

    def loss(self, batch: Any) -> torch.Tensor:
        output = self.layer(batch[0] if isinstance(batch, (list, tuple)) else batch)
        if self.forward_ms:
            wait(self.forward_ms)
        if self.backward_ms and output.requires_grad:
            output.register_hook(lambda _: wait(self.backward_ms))
        return output.square().mean()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.loss(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Manual(Plain):
    """Two optimizers stepped by hand in one window, as a GAN does."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), lr=0.01), torch.optim.SGD(self.parameters(), lr=0.01)]


class Samples(torch.utils.data.Dataset):
    """Eight-number samples; slow to get where asked."""

    def __init__(self, length: int, item_ms: float = 0.0) -> None:
        self.length, self.item_ms = length, item_ms

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.item_ms:
            wait(self.item_ms)
        return torch.full((4,), float(index % 7))


class Stream(torch.utils.data.IterableDataset):
    """Samples without a length."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self):
        return iter([torch.full((4,), float(index % 7)) for index in range(self.length)])


def loader(batches: int = 6, item_ms: float = 0.0, **options: Any) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(Samples(batches * 2, item_ms), batch_size=2, **options)


def trainer(runs_dir: Any, *callbacks: Any, settings: dict[str, Any] | None = None, **options: Any) -> pl.Trainer:
    """A quiet trainer with a TraceMLCallback (`settings=False` leaves it out)."""
    ours = [] if settings is False else [TraceMLCallback(runs_dir=str(runs_dir), report="off", **(settings or {}))]
    defaults = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(callbacks=[*ours, *callbacks], **{**defaults, **options})
