"""One training of what `benchmarks/compare.py` compares, started in a process of its own each time.

    python benchmarks/compare_training.py --run-dir RUN --slower 0.05
    python benchmarks/compare_training.py --run-dir RUN --real

A step costs a known time: 20 ms of timed waits in its phases beside a small network's work; `--slower` lengthens the
wait in forward. With `--real` it is all work and no waits, and costs what the machine makes of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from compare_workload import Workload, add_workload_arguments, make_batch, make_layers, wait, workload_of

from traceml_core.sdk import trace_run


def main() -> None:
    """Train once; the run folder is what is wanted of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", required=True)
    add_workload_arguments(parser)
    arguments = parser.parse_args()
    work = workload_of(arguments)
    network = make_layers(work.width)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    with trace_run(run_dir=arguments.run_dir, report="off") as run:
        run.describe(batch_size=work.batch)
        for features, labels in run.batches(_batches(work)):
            with run.step():
                with run.phase("forward"):
                    loss = torch.nn.functional.cross_entropy(network(features), labels)
                    wait(work.forward_ms)
                with run.phase("backward"):
                    loss.backward()
                    wait(work.backward_ms)
                with run.phase("optimizer"):
                    optimizer.step()
                    optimizer.zero_grad()
                    wait(work.optimizer_ms)


def _batches(work: Workload) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for _ in range(work.steps):
        wait(work.input_wait_ms)
        yield make_batch(work.batch)


if __name__ == "__main__":
    main()
