"""Train a small network on scikit-learn's digits with Accelerate, recorded by `TraceMLCallback().attach(accelerator)`.

    python examples/accelerate/train.py
    accelerate launch --config_file examples/accelerate/single.yaml examples/accelerate/train.py

`multi_gpu.yaml`, `fsdp.yaml` and `deepspeed.yaml` beside this file start the same script on several GPUs.

Needs: pip install "traceml-callbacks[accelerate]" scikit-learn
"""

from __future__ import annotations

import argparse

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split

from traceml_hf.accelerate import TraceMLCallback


def make_network() -> torch.nn.Module:
    """Two convolutions and a linear layer, for 8 x 8 grey images."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(64 * 8 * 8, 10),
    )


def make_loaders(batch_size: int) -> tuple[DataLoader, DataLoader]:
    """The bundled digits, nine tenths of them for training."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    data = TensorDataset(images, torch.from_numpy(digits.target))
    training, validation = random_split(data, [0.9, 0.1], generator=torch.Generator().manual_seed(0))
    return DataLoader(training, batch_size=batch_size, shuffle=True), DataLoader(validation, batch_size=batch_size)


def accuracy(accelerator: Accelerator, network: torch.nn.Module, loader: DataLoader) -> float:
    """The share of images that the network names rightly."""
    network.eval()
    right = seen = 0
    with torch.no_grad():
        for images, labels in loader:
            named, truth = accelerator.gather_for_metrics((network(images).argmax(1), labels))
            right += int((named == truth).sum())
            seen += len(truth)
    network.train()
    return right / seen


def main() -> None:
    """Train for some epochs; the report follows by itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    accelerator = Accelerator()
    with TraceMLCallback().attach(accelerator):
        network = make_network()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
        network, optimizer, training, validation = accelerator.prepare(
            network, optimizer, *make_loaders(arguments.batch_size)
        )
        for epoch in range(arguments.epochs):
            for images, labels in training:
                with accelerator.accumulate(network):
                    loss = torch.nn.functional.cross_entropy(network(images), labels)
                    accelerator.backward(loss)
                    accelerator.clip_grad_norm_(network.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
            accelerator.print(f"epoch {epoch}: {accuracy(accelerator, network, validation):.1%} right")
        accelerator.end_training()


if __name__ == "__main__":
    main()
