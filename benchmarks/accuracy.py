"""How truly a planted delay is recovered: random timed waits in every phase of every step, against what was recorded.

    python benchmarks/accuracy.py

Per framework and phase: the slope of the recorded time over the planted time, with its 95 % interval, over all steps;
and how much of the wall time around the training the stored rows account for.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import training_loops as loops
from traceml_core.history.reader import HistoryReader

MAX_WAIT_S = 0.008


class Plant:
    """Waits a random time and notes where and when: `(phase, Unix nanoseconds at its middle, nanoseconds)`."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.waits: list[tuple[str, int, int]] = []
        self.armed = False

    def __call__(self, phase: str) -> None:
        """Wait once in `phase`."""
        if not self.armed:
            return
        unix, began = time.time_ns(), time.perf_counter_ns()
        time.sleep(self.random.uniform(0, MAX_WAIT_S))
        spent = time.perf_counter_ns() - began
        self.waits.append((phase, unix + spent // 2, spent))


class Batches(torch.utils.data.IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Ready batches, each with a wait before it."""

    def __init__(self, steps: int, plant: Plant) -> None:
        self.steps, self.plant = steps, plant

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for _ in range(self.steps):
            self.plant("input_wait")
            yield {"features": torch.randn(16, loops.FEATURES), "labels": torch.randint(0, 10, (16,))}


class SlowOptimizer(torch.optim.SGD):
    """SGD with a wait in its step."""

    plant: Plant

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take the closure's loss first, then wait: forward and backward lie in the closure."""
        result = super().step(closure)
        self.plant("optimizer")
        return result


class SlowNetwork(torch.nn.Module):
    """A small network with a wait in forward and one in backward."""

    def __init__(self, plant: Plant) -> None:
        super().__init__()
        self.network = loops.model()
        self.plant = plant

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        self.plant("forward")
        hidden = self.network(features)
        hidden.register_hook(lambda _: self.plant("backward"))
        return {"loss": torch.nn.functional.cross_entropy(hidden, labels), "logits": hidden}


def main() -> None:
    """Train once per framework, and print slopes and coverage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", nargs="+", choices=sorted(_TRAININGS), default=sorted(_TRAININGS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    loops.quiet()
    torch.set_num_threads(1)
    print(f"{arguments.steps} steps, waits of 0 to {MAX_WAIT_S * 1e3:.0f} ms in every phase of every step")
    for framework in arguments.frameworks:
        plant = Plant(arguments.seed)
        with tempfile.TemporaryDirectory() as folder, loops.silent_streams():
            wall_s = _TRAININGS[framework](arguments.steps, plant, str(Path(folder) / "run"))
            rows = HistoryReader(Path(folder) / "run" / "telemetry.sqlite").columns("step_time")
        _print_framework(framework, rows, plant, wall_s)


def _lightning(steps: int, plant: Plant, run_dir: str) -> float:
    import lightning as pl

    from traceml_lightning import TraceMLCallback

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = SlowNetwork(plant)

        def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
            plant("h2d")
            return super().transfer_batch_to_device(batch, device, dataloader_idx)

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return self.network(**batch)["loss"]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return _optimizer(self, plant)

    class Slow(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            plant("callbacks")

    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Slow(), TraceMLCallback(run_dir=run_dir, report="off")],
    )
    module, loader = Module(), torch.utils.data.DataLoader(Batches(steps, plant), batch_size=None)
    return _timed(plant, lambda: trainer.fit(module, loader))


def _hf(steps: int, plant: Plant, run_dir: str) -> float:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from traceml_hf import TraceMLCallback

    class Slow(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            plant("callbacks")

    arguments = TrainingArguments(
        output_dir=run_dir + "-output",
        max_steps=steps,
        per_device_train_batch_size=1,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    network = SlowNetwork(plant)
    trainer = Trainer(
        network,
        arguments,
        train_dataset=Batches(steps, plant),
        data_collator=lambda items: items[0],
        optimizers=(_optimizer(network, plant), None),
        callbacks=[Slow(), TraceMLCallback(run_dir=run_dir, report="off")],
    )
    return _timed(plant, trainer.train)


def _accelerate(steps: int, plant: Plant, run_dir: str) -> float:
    from accelerate import Accelerator

    from traceml_hf.accelerate import TraceMLCallback

    def train() -> None:
        with TraceMLCallback(run_dir=run_dir, report="off").attach(accelerator):
            network = SlowNetwork(plant)
            batches = torch.utils.data.DataLoader(Batches(steps, plant), batch_size=None)
            model, optimizer, batches = accelerator.prepare(network, _optimizer(network, plant), batches)
            for batch in batches:
                optimizer.zero_grad()
                accelerator.backward(model(**batch)["loss"])
                optimizer.step()

    accelerator = Accelerator(cpu=True)
    return _timed(plant, train)


_TRAININGS = {"accelerate": _accelerate, "hf": _hf, "lightning": _lightning}


def _optimizer(module: torch.nn.Module, plant: Plant) -> SlowOptimizer:
    optimizer = SlowOptimizer(module.parameters(), lr=0.01)
    optimizer.plant = plant
    return optimizer


def _timed(plant: Plant, train: Callable[[], Any]) -> float:
    plant.armed = True
    began = time.perf_counter()
    train()
    return time.perf_counter() - began


def _print_framework(framework: str, rows: Any, plant: Plant, wall_s: float) -> None:
    steps = ~np.isnan(rows["step"])
    started, interval = rows["started_ns"], rows["interval_ns"]
    covered = (interval.sum() - rows["unattributed_ns"].sum()) / 1e9
    print(
        f"\n{framework}: {steps.sum()} steps, wall {wall_s:.2f} s, rows cover {interval.sum() / 1e9 / wall_s:.2%}",
        end="",
    )
    print(f" (named phases {covered / wall_s:.2%})")
    planted: dict[str, Any] = defaultdict(lambda: np.zeros(len(started)))
    for phase, at, spent in plant.waits:
        index = int(np.searchsorted(started, at, side="right")) - 1
        if index >= 0:
            planted[phase][index] += spent
    for phase, waits in planted.items():
        slope, half_width = _slope(waits[steps], rows[f"{phase}_ns"][steps].astype(float))
        print(f"  {phase:12} slope {slope:.4f} ± {half_width:.4f}   planted {waits[steps].mean() / 1e6:5.2f} ms a step")


def _slope(planted: Any, recorded: Any) -> tuple[float, float]:
    """Least squares with its 95 % half-width."""
    centred = planted - planted.mean()
    slope = float(centred @ recorded / (centred @ centred))
    residual = recorded - recorded.mean() - slope * centred
    error = float(np.sqrt((residual @ residual) / (len(planted) - 2) / (centred @ centred)))
    return slope, 1.96 * error


if __name__ == "__main__":
    main()
