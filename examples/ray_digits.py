"""Train a small network on the digits with Ray Train, on two workers; its loader is too slow until it is mended.

    python examples/ray_digits.py           # every image is enlarged and turned anew, in the training processes
    python examples/ray_digits.py --mended  # the same images, prepared once before training

Needs: pip install "traceml-callbacks[ray]" torch scikit-learn
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import numpy as np
import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import prepare_data_loader, prepare_model
from scipy import ndimage
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset

from traceml_core.sdk import trace_run
from traceml_ray import TraceMLTorchTrainer


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


def train(config: dict[str, Any]) -> None:
    """What each worker does. `trace_run` joins the run that the trainer opened for this worker."""
    torch.manual_seed(7)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 5, stride=2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 5, stride=2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(32 * 9 * 9, 10),
    )
    model = prepare_model(network)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader = prepare_data_loader(DataLoader(Digits(config["mended"]), batch_size=32, shuffle=True))
    with trace_run() as run:
        for epoch in range(config["epochs"]):
            loader.sampler.set_epoch(epoch)
            for images, labels in run.batches(loader):
                with run.step():
                    with run.phase("forward"):
                        loss = torch.nn.functional.cross_entropy(model(images), labels)
                    with run.phase("backward"):
                        loss.backward()
                    with run.phase("optimizer"):
                        optimizer.step()
                        optimizer.zero_grad()
            with run.phase("logging"):
                ray.train.report({"epoch": epoch, "loss": loss.item()})


def main() -> None:
    """Train for a few epochs; the report of both workers follows by itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mended", action="store_true", help="prepare the images once, before training")
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)  # else Ray's own lines surround the report
    with tempfile.TemporaryDirectory() as storage:
        TraceMLTorchTrainer(
            train,
            train_loop_config={"mended": arguments.mended, "epochs": arguments.epochs},
            scaling_config=ScalingConfig(num_workers=2),
            run_config=RunConfig(storage_path=storage),
            traceml={"name": "ray-digits"},
        ).fit()


if __name__ == "__main__":
    main()
