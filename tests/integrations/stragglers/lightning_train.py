"""A Lightning training of several ranks, started by its own launcher or by torchrun."""

import lightning as pl
import plant
import torch

from traceml_lightning import TraceMLCallback


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = plant.Network()

    def training_step(self, batch, _):
        return self.network(**batch)["loss"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


if __name__ == "__main__":
    for cause in plant.causes():
        loader = torch.utils.data.DataLoader(plant.Samples(), batch_size=plant.BATCH, collate_fn=plant.collate)
        pl.Trainer(
            max_epochs=1,
            accelerator="cpu",
            strategy="ddp",
            devices=plant.RANKS,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[TraceMLCallback(run_dir=cause)],
        ).fit(Module(), loader)
