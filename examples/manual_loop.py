"""Train a small network on scikit-learn's digits with a hand-written loop that marks its own phases.

    python examples/manual_loop.py

Needs: pip install traceml-callbacks torch scikit-learn
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from traceml_core.sdk import trace_run


def make_loader() -> DataLoader:
    """The bundled digits, as 64 grey levels and a class."""
    digits = load_digits()
    data = TensorDataset(torch.from_numpy(digits.data).float() / 16, torch.from_numpy(digits.target))
    return DataLoader(data, batch_size=32, shuffle=True)


def main() -> None:
    """Train for some epochs; the report follows by itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    loader = make_loader()
    with trace_run(name="manual_loop") as run:
        for epoch in range(arguments.epochs):
            for pixels, labels in run.batches(loader):
                with run.step():
                    with run.phase("forward"):
                        loss = torch.nn.functional.cross_entropy(network(pixels), labels)
                    with run.phase("backward"):
                        loss.backward()
                    with run.phase("optimizer"):
                        optimizer.step()
                        optimizer.zero_grad()
            with run.phase("validation"), torch.no_grad():
                right = sum(int((network(pixels).argmax(1) == labels).sum()) for pixels, labels in loader)
            print(f"epoch {epoch}: {right / len(loader.dataset):.1%} right")


if __name__ == "__main__":
    main()
