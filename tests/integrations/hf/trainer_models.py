"""Tiny models, data and trainers for the Hugging Face Trainer; nothing is downloaded."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from traceml_hf import TraceMLCallback

WAITED_MS: list[float] = []


def wait(milliseconds: float) -> None:
    """Wait, and note how long that was: a busy machine wakes nobody in time."""
    began = time.perf_counter_ns()
    time.sleep(milliseconds / 1e3)
    WAITED_MS.append((time.perf_counter_ns() - began) / 1e6)


class Tiny(torch.nn.Module):
    """One linear layer that gives a loss; waits where a test wants it to."""

    def __init__(self, forward_ms: float = 0.0, backward_ms: float = 0.0) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
        self.forward_ms, self.backward_ms = forward_ms, backward_ms

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.layer(features)
        if self.forward_ms:
            wait(self.forward_ms)
        if self.backward_ms and logits.requires_grad:
            logits.register_hook(lambda _: wait(self.backward_ms))
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


class Samples(torch.utils.data.Dataset):
    """Four features and a label; slow to get where asked."""

    def __init__(self, length: int, item_ms: float = 0.0) -> None:
        self.length, self.item_ms = length, item_ms

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if self.item_ms:
            wait(self.item_ms)
        return {"features": torch.full((4,), float(index % 5)), "labels": torch.tensor(index % 2)}


def trainer(
    folder: Any,
    *callbacks: Any,
    model: Any = None,
    data: Any = None,
    kind: type[Trainer] = Trainer,
    settings: Any = None,
    parts: dict[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    """A quiet trainer with a TraceMLCallback (`settings=False` leaves it out); its runs go to `folder / "runs"`."""
    runs_dir = str(folder / "runs")
    ours = [] if settings is False else [TraceMLCallback(runs_dir=runs_dir, report="off", **(settings or {}))]
    defaults = {
        "output_dir": str(folder / "output"),
        "per_device_train_batch_size": 2,
        "num_train_epochs": 1,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "max_grad_norm": 1.0,
    }
    parts = dict(parts or {})
    if "model_init" not in parts:
        parts["model"] = Tiny() if model is None else model
    made = kind(
        args=TrainingArguments(**{**defaults, **options}),
        train_dataset=Samples(12) if data is None else data,
        callbacks=[*ours, *callbacks],
        **parts,
    )
    made.remove_callback(PrinterCallback)
    return made
