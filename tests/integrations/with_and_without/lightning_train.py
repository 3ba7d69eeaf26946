"""Trains twice under Lightning, with a progress bar and then without; the second time a step raises."""

import sys

import lightning as pl
import patience
import torch

from traceml_lightning import TraceMLCallback


class Model(pl.LightningModule):
    def __init__(self, fail_at=None):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))
        self.fail_at = fail_at

    def training_step(self, batch, number):
        if number == 2:
            print("step", number)
        if number == self.fail_at:
            try:
                {}["label"]
            except KeyError as error:
                raise ValueError("no such label") from error
        loss = torch.nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(model, bar):
    options = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "accelerator": "cpu"}
    callbacks = [TraceMLCallback()] if sys.argv[1] == "on" else []
    callbacks += [pl.pytorch.callbacks.TQDMProgressBar()] if bar else []
    data = torch.utils.data.TensorDataset(torch.randn(16, 4), torch.arange(16) % 2)
    loader = torch.utils.data.DataLoader(data, batch_size=2, shuffle=True)
    trainer = pl.Trainer(max_epochs=1, callbacks=callbacks, enable_progress_bar=bar, **options)
    trainer.fit(model, loader)
    print("weights", [parameter.tolist() for parameter in model.parameters()], torch.rand(1))


patience.wait_patiently()
torch.manual_seed(1)
fit(Model(), bar=True)
fit(Model(fail_at=4), bar=False)
