"""The training of `compare_training.py` under the known tool (traceml-ai 0.5.0), started by its own launcher.

It measures by itself where a loader, a model and an optimizer are; so the waits lie inside of them where they can.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
import traceml_ai
from compare_workload import Workload, add_workload_arguments, make_batch, make_layers, wait, workload_of
from traceml_ai.sdk import trace_step


class Batches(torch.utils.data.IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Made-up batches, each after a wait."""

    def __init__(self, work: Workload) -> None:
        self.work = work

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for _ in range(self.work.steps):
            wait(self.work.input_wait_ms)
            yield make_batch(self.work.batch)


class Network(torch.nn.Module):
    """The same network, with the wait in forward."""

    def __init__(self, work: Workload) -> None:
        super().__init__()
        self.layers = make_layers(work.width)
        self.wait_ms = work.forward_ms

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        wait(self.wait_ms)
        return self.layers(features)


def main() -> None:
    """Train once."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_workload_arguments(parser)
    arguments = parser.parse_args()
    work = workload_of(arguments)
    traceml_ai.init(mode="auto")
    network = Network(work)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for features, labels in torch.utils.data.DataLoader(Batches(work), batch_size=None):
        with trace_step(network):
            loss = torch.nn.functional.cross_entropy(network(features), labels)
            wait(work.backward_ms)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            wait(work.optimizer_ms)


if __name__ == "__main__":
    main()
