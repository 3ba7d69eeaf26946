"""Trainings of several ranks, one after the other in the same processes: `python fits.py FRAMEWORK LAUNCHER CASE...`.

A case says which ranks have a callback. Every rank tells each training on stdout as a JSON line: the case, the rank,
when it began and ended, and the weights' digest. Runs go to `runs/CASE`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import patience
import torch

patience.wait_patiently()
STEPS = 40
STEP_S = 0.005
# Where the callback is: `disabled` by its environment variable, `missing` since it cannot be imported.
CASES = {
    "plain": ("missing", "missing"),
    "both": ("on", "on"),
    "rank_0_only": ("on", "missing"),
    "rank_1_only": ("missing", "on"),
    "disabled_on_0": ("disabled", "on"),
    "disabled_on_1": ("on", "disabled"),
    "both_again": ("on", "on"),
}
IN_CHILDREN = ("ddp_spawn", "ddp_fork", "ddp_notebook")
MODULES = {"lightning": "traceml_lightning", "hf": "traceml_hf", "accelerate": "traceml_hf.accelerate"}


def callbacks(framework: str, case: str, rank: int) -> list[Any]:
    """What a script that does without an absent package puts into its trainer on this rank."""
    state = CASES[case][min(rank, 1)]
    name = MODULES[framework]
    known = sys.modules.pop(name, None)
    if state == "missing":
        sys.modules[name] = None  # type: ignore[assignment]  # importing it raises ImportError
    elif known is not None:
        sys.modules[name] = known
    os.environ["TRACEML_DISABLED"] = "1" if state == "disabled" else "0"
    try:
        return [importlib.import_module(name).TraceMLCallback(runs_dir=f"runs/{case}")]
    except ImportError:
        return []
    finally:
        if known is not None:
            sys.modules[name] = known
        elif state == "missing":
            del sys.modules[name]


def global_rank() -> int:
    """This process before any framework is up."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


class Model(torch.nn.Module):
    """A layer, and a wait."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, features: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        time.sleep(STEP_S)
        return {"loss": self.layer(features).square().mean()}


class Samples(torch.utils.data.Dataset):
    """As many as two ranks use up in `STEPS` steps of two."""

    def __len__(self) -> int:
        return STEPS * 2 * int(os.environ.get("FITS_RANKS", "2"))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"features": torch.full((4,), float(index % 7)), "labels": torch.tensor(0)}


def tell(case: str, model: torch.nn.Module, began_s: float) -> None:
    """Say how the training went."""
    weights = b"".join(value.detach().numpy().tobytes() for value in model.state_dict().values())
    told = {"case": case, "rank": torch.distributed.get_rank(), "began_s": began_s, "ended_s": time.monotonic()}
    print(json.dumps({**told, "weights": hashlib.sha256(weights).hexdigest()}), flush=True)


def fit_lightning(case: str, strategy: str) -> None:
    import lightning as pl
    from lightning_module import Module

    began_s = time.monotonic()
    module = Module(case, tells=strategy in IN_CHILDREN)
    pl.Trainer(
        callbacks=callbacks("lightning", case, global_rank()),
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, torch.utils.data.DataLoader(Samples(), batch_size=2))
    if strategy not in IN_CHILDREN:
        tell(case, module.model, began_s)


def fit_hf(case: str, launcher: str) -> None:
    from transformers import PrinterCallback, Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir="output",
        per_device_train_batch_size=2,
        num_train_epochs=1,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    model = Model()
    trainer = Trainer(
        model=model, args=arguments, train_dataset=Samples(), callbacks=callbacks("hf", case, global_rank())
    )
    trainer.remove_callback(PrinterCallback)
    began_s = time.monotonic()
    trainer.train()
    tell(case, model, began_s)


def fit_accelerate(case: str, launcher: str) -> None:
    from contextlib import ExitStack

    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = Model()
    began_s = time.monotonic()
    with ExitStack() as attached:
        for callback in callbacks("accelerate", case, accelerator.process_index):
            attached.enter_context(callback.attach(accelerator))
        ready, optimizer, loader = accelerator.prepare(
            model,
            torch.optim.SGD(model.parameters(), lr=0.01),
            torch.utils.data.DataLoader(Samples(), batch_size=2),
        )
        for batch in loader:
            accelerator.backward(ready(**batch)["loss"])
            optimizer.step()
            optimizer.zero_grad()
    tell(case, model, began_s)


FITS: dict[str, Callable[[str, str], None]] = {
    "lightning": fit_lightning,
    "hf": fit_hf,
    "accelerate": fit_accelerate,
}


def main(framework: str, launchers: str, *cases: str) -> None:
    """Train once for every case; of several launchers (Lightning's strategies), each case has its own."""
    named = launchers.split(",")
    for number, case in enumerate(cases):
        FITS[framework](case, named[number % len(named)])
        if torch.distributed.is_initialized():
            # A rank that sat a run out must not begin the next one while rank 0 still trains: see `rendezvous`.
            torch.distributed.barrier()


if __name__ == "__main__":
    main(*sys.argv[1:])
