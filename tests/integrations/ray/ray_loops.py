"""What Ray's workers run in the tests. Each loop takes Ray's `config`, with the test's folder and what is to happen."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from traceml_core.history.reader import HistoryReader, HistoryUnreadableError

STEP_S = 0.01
LIMIT_S = 120.0


def wait_for(condition: Callable[[], Any]) -> None:
    """Wait until something is true."""
    until_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def has_stored(config: dict[str, Any], rank: int, steps: int) -> bool:
    """Whether so many steps of a rank are in the history of the test's run, so that no death can take them."""
    for history in Path(config["folder"]).glob("runs/*/telemetry.sqlite"):
        with suppress(HistoryUnreadableError), HistoryReader(history) as reader:  # it may just be being made
            rows = reader.columns("step_time")
            return bool(rows) and int(((rows["rank"] == rank) & (rows["step"] > 0)).sum()) >= steps
    return False


class Samples(torch.utils.data.Dataset):
    """Random samples, slow to get where asked."""

    def __init__(self, length: int, item_s: float = 0.0) -> None:
        self.length, self.item_s = length, item_s

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        time.sleep(self.item_s)
        return torch.randn(4), index % 2


def slow_data(config: dict[str, Any]) -> None:
    """A data-parallel loop whose dataset takes most of a step."""
    import ray.train.torch

    from traceml_core.sdk import trace_run

    model = ray.train.torch.prepare_model(torch.nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.utils.data.DataLoader(Samples(480, 0.005), batch_size=4)
    with trace_run() as run:
        for samples, labels in run.batches(ray.train.torch.prepare_data_loader(data)):
            with run.step():
                with run.phase("forward"):
                    loss = torch.nn.functional.cross_entropy(model(samples), labels)
                with run.phase("backward"):
                    loss.backward()
                with run.phase("optimizer"):
                    optimizer.step()


def rank_1_is_killed(config: dict[str, Any]) -> None:
    """Steps without any data; once a hundred of each rank are stored, rank 1's process is killed."""
    import ray.train

    from traceml_core.sdk import trace_run

    dies = ray.train.get_context().get_world_rank() == 1
    with trace_run() as run:
        for step in range(6000):
            with run.step(), run.phase("forward"):
                time.sleep(STEP_S)
            if dies and step == 110:
                wait_for(lambda: has_stored(config, 0, 100) and has_stored(config, 1, 100))
                os.kill(os.getpid(), signal.SIGKILL)


def until_told(config: dict[str, Any]) -> None:
    """Steps until the test says that it is enough; it hears when ninety are stored."""
    from traceml_core.sdk import trace_run

    started, enough = Path(config["folder"]) / "started", Path(config["folder"]) / "enough"
    with trace_run() as run:
        for step in range(6000):
            with run.step(), run.phase("forward"):
                time.sleep(STEP_S)
            if step == 100:
                wait_for(lambda: has_stored(config, 0, 90))
                started.touch()
            if enough.exists():
                break


def lightning_that_fails(config: dict[str, Any]) -> None:
    """A Lightning trainer with a callback of ours, as Ray's guide sets it up; its step raises."""
    import lightning as pl
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment, prepare_trainer

    from traceml_lightning import TraceMLCallback

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            if index == 50:
                raise KeyError("the user's own")
            time.sleep(STEP_S)
            return self.layer(batch[0]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices="auto",
        strategy=RayDDPStrategy(),
        plugins=[RayLightningEnvironment()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[TraceMLCallback(runs_dir=config["folder"] + "/other")],
    )
    prepare_trainer(trainer).fit(Model(), torch.utils.data.DataLoader(Samples(200), batch_size=2))


def hugging_face_killed_once(config: dict[str, Any]) -> None:
    """A Trainer with a callback of ours; its process is killed after 70 of 100 steps, the next is not."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from traceml_hf import TraceMLCallback

    mark = Path(config["folder"]) / "killed"

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            time.sleep(STEP_S)
            logits = self.layer(features)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    class Kill(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 70 and not mark.exists():
                wait_for(lambda: has_stored(config, 0, 60))
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    def collate(samples: list[Any]) -> dict[str, torch.Tensor]:
        return {"features": torch.stack([one for one, _ in samples]), "labels": torch.tensor([y for _, y in samples])}

    arguments = TrainingArguments(
        output_dir=config["folder"] + "/output",
        per_device_train_batch_size=2,
        num_train_epochs=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    callbacks = [TraceMLCallback(runs_dir=config["folder"] + "/other"), Kill()]
    Trainer(Model(), arguments, data_collator=collate, train_dataset=Samples(200), callbacks=callbacks).train()
