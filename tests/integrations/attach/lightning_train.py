"""A Lightning script that knows nothing of TraceML, unless it is told to add the callback itself."""

import sys
import time

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Regression(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch, _):
        time.sleep(0.01)  # so long a run that its CPU time is told
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


callbacks = []
if "--explicit" in sys.argv:
    from traceml_lightning import TraceMLCallback

    callbacks = [TraceMLCallback()]
trainer = pl.Trainer(
    max_epochs=1,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_model_summary=False,
    enable_progress_bar=False,
    callbacks=callbacks,
)
trainer.fit(Regression(), DataLoader(TensorDataset(torch.randn(320, 8)), batch_size=16))
print("trained", trainer.global_step, len(sys.stdin.read()))
sys.exit(3)
