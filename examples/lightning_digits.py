"""Train a small network on scikit-learn's digits with Lightning; its loader is too slow until it is mended.

    python examples/lightning_digits.py           # every image is enlarged and turned anew, in the training process
    python examples/lightning_digits.py --mended  # the same images, prepared once before training

Needs: pip install "traceml-callbacks[demo]"
"""

from __future__ import annotations

import argparse
import warnings

import lightning as pl
import numpy as np
import torch
from scipy import ndimage
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset

from traceml_lightning import TraceMLCallback


class Digits(Dataset[tuple[torch.Tensor, int]]):
    """The bundled 8 × 8 digits, enlarged to 48 × 48, turned a little and smoothed, as an image pipeline would."""

    def __init__(self, prepared: bool) -> None:
        """`prepared`: do the image work once, here, instead of at every access."""
        digits = load_digits()
        self.images, self.labels = digits.images.astype(np.float32) / 16, digits.target
        self.ready = [self._prepare(index) for index in range(len(self.labels))] if prepared else None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self.ready[index] if self.ready is not None else self._prepare(index)
        return image, int(self.labels[index])

    def _prepare(self, index: int) -> torch.Tensor:
        angle = np.random.default_rng(index).uniform(-15, 15)
        image = ndimage.rotate(ndimage.zoom(self.images[index], 6, order=3), angle, reshape=False, order=3)
        return torch.from_numpy(ndimage.gaussian_filter(image, sigma=0.7)).unsqueeze(0)


class Classifier(pl.LightningModule):
    """Two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 5, stride=2),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 5, stride=2),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.LazyLinear(10),
        )
        self.network(torch.zeros(1, 1, 48, 48))

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main() -> None:
    """Train for a few epochs; the report follows by itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mended", action="store_true", help="prepare the images once, before training")
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    pl.seed_everything(7, verbose=False)

    loader = DataLoader(Digits(prepared=arguments.mended), batch_size=32, shuffle=True)
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[TraceMLCallback()],
    )
    trainer.fit(Classifier(), loader)


if __name__ == "__main__":
    main()
