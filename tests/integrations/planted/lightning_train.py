"""A Lightning training with one planted cause after the other; `python lightning_train.py CAUSE [CAUSE ...]`."""

import sys
import time

import causes
import lightning as pl
import torch

from traceml_lightning import TraceMLCallback


class Module(pl.LightningModule):
    def __init__(self, cause):
        super().__init__()
        self.network, self.cause = causes.Network(cause), cause

    def training_step(self, batch, _):
        return self.network(**batch)["loss"]

    def validation_step(self, batch, _):
        if self.cause == "frequent_validation":
            causes.busy(5)

    def configure_optimizers(self):
        return causes.optimizer(self, self.cause)

    def on_save_checkpoint(self, checkpoint):
        if self.cause == "slow_checkpoints":
            time.sleep(0.1)


class SlowCallback(pl.Callback):
    def on_train_batch_end(self, *_):
        time.sleep(0.02)


def main(cause: str) -> None:
    callbacks = [TraceMLCallback()]
    options = {}
    if cause == "slow_callback":
        callbacks.append(SlowCallback())
    if cause == "slow_checkpoints":
        callbacks.append(pl.pytorch.callbacks.ModelCheckpoint(every_n_train_steps=5, save_top_k=-1))
    if cause == "frequent_validation":
        options["val_check_interval"] = 10
    count = causes.steps(cause) // causes.epochs(cause)
    loader = torch.utils.data.DataLoader(causes.Data(cause, count), **causes.loader_arguments(cause))
    held_out = torch.utils.data.DataLoader(causes.Data("", 16), batch_size=causes.BATCH)
    trainer = pl.Trainer(max_epochs=causes.epochs(cause), accelerator="cpu", callbacks=callbacks, **options)
    began = time.perf_counter()
    trainer.fit(Module(cause), loader, held_out if cause in ("frequent_validation", "healthy") else None)
    causes.tell_wall(began)


if __name__ == "__main__":
    causes.train_each(main, sys.argv[1:])
