"""One small training per framework; a marker of the framework's own notes every step's main-thread CPU time.

Under torchrun every rank does all the steps, on data of its own.

The known tool's environment runs this file too, so nothing here imports TraceML callbacks.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

BATCH = 16
FEATURES = 64
RANKS = int(os.environ.get("WORLD_SIZE", "1"))
# What a marker calls once a step, for the thread's CPU nanoseconds; a benchmark may put its own in place.
at_step_end: Callable[[], int] = time.thread_time_ns


def model() -> torch.nn.Module:
    """A network whose step costs well under a millisecond, so that an addition of microseconds shows."""
    return torch.nn.Sequential(torch.nn.Linear(FEATURES, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))


def loader(steps: int) -> torch.utils.data.DataLoader[Any]:
    """`steps` batches a rank of made-up data, loaded in the main process."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(steps * RANKS * BATCH, FEATURES, generator=generator)
    labels = torch.randint(0, 10, (steps * RANKS * BATCH,), generator=generator)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(features, labels), batch_size=BATCH)


def quiet() -> None:
    """Keep framework banners out of the figures."""
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "pytorch_lightning", "transformers", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def lightning_steps(steps: int, callbacks: list[Any]) -> list[int]:
    """CPU nanoseconds of each step of one Lightning fit."""
    import lightning as pl

    marks: list[int] = []

    class Marker(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            marks.append(at_step_end())

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = model()

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=RANKS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Marker(), *callbacks],
    )
    trainer.fit(Module(), loader(steps))
    return _differences(marks)


def hf_steps(steps: int, callbacks: list[Any]) -> list[int]:
    """CPU nanoseconds of each step of one Hugging Face Trainer run."""
    from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

    marks: list[int] = []

    class Marker(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(at_step_end())

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model()

        def forward(self, features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = self.network(features)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    generator = torch.Generator().manual_seed(0)
    data = [
        {"features": torch.randn(FEATURES, generator=generator), "labels": torch.tensor(index % 10)}
        for index in range(steps * RANKS * BATCH)
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(Module(), arguments, train_dataset=data, callbacks=[Marker(), *callbacks])
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        trainer.train()
    return _differences(marks)


def accelerate_steps(
    steps: int,
    around: Callable[[Any], AbstractContextManager[Any]] = lambda _: nullcontext(),
    step_context: Callable[[Any], AbstractContextManager[Any]] | None = None,
) -> list[int]:
    """CPU nanoseconds of each step of one hand-written Accelerate loop."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    marks: list[int] = []
    with around(accelerator):
        network = model()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        network, optimizer, batches = accelerator.prepare(network, optimizer, loader(steps))
        for features, labels in batches:
            with step_context(network) if step_context is not None else nullcontext():
                optimizer.zero_grad()
                accelerator.backward(torch.nn.functional.cross_entropy(network(features), labels))
                optimizer.step()
            marks.append(at_step_end())
    accelerator.free_memory()
    return _differences(marks)


@contextlib.contextmanager
def silent_streams() -> Iterator[None]:
    """Swallow what a framework prints while it is measured."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _differences(marks: list[int]) -> list[int]:
    return [after - before for before, after in zip(marks, marks[1:], strict=False)]
