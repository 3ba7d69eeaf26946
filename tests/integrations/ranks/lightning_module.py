"""The model of `fits.py` as a Lightning module; in a file of its own, so that spawned ranks find it."""

from __future__ import annotations

import time
from typing import Any

import lightning as pl
import torch
from fits import Model, tell


class Module(pl.LightningModule):
    """Where training happens in children of the script, only they can tell how it went: `tells`."""

    def __init__(self, case: str, tells: bool) -> None:
        super().__init__()
        self.model = Model()
        self.case, self.tells, self.began_s = case, tells, time.monotonic()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.model(**batch)["loss"]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def on_train_end(self) -> None:
        if self.tells:
            tell(self.case, self.model, self.began_s)
