"""The training of `compare_training.py` under the known tool (traceml-ai 0.5.0), started by its own launcher.

It measures by itself where a loader, a model and an optimizer are; so the waits lie inside of them where they can.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import torch
import traceml_ai
from traceml_ai.sdk import trace_step

WAITS_MS = {"input_wait": 2.0, "forward": 3.0, "backward": 4.0, "optimizer": 1.0}
BATCH, FEATURES = 16, 64


class Batches(torch.utils.data.IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Made-up batches, each after a wait."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for _ in range(self.steps):
            time.sleep(WAITS_MS["input_wait"] / 1e3)
            yield torch.randn(BATCH, FEATURES), torch.randint(0, 10, (BATCH,))


class Network(torch.nn.Module):
    """The same small network, with the wait in forward."""

    def __init__(self, wait_ms: float) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(FEATURES, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
        self.wait_ms = wait_ms

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        time.sleep(self.wait_ms / 1e3)
        return self.layers(features)


def main() -> None:
    """Train once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--slower", type=float, default=0.0)
    arguments = parser.parse_args()
    traceml_ai.init(mode="auto")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = Network(WAITS_MS["forward"] + arguments.slower * sum(WAITS_MS.values()))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for features, labels in torch.utils.data.DataLoader(Batches(arguments.steps), batch_size=None):
        with trace_step(network):
            loss = torch.nn.functional.cross_entropy(network(features), labels)
            time.sleep(WAITS_MS["backward"] / 1e3)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            time.sleep(WAITS_MS["optimizer"] / 1e3)


if __name__ == "__main__":
    main()
