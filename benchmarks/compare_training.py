"""One training whose step costs a known time: what `benchmarks/compare.py` starts, in a process of its own each time.

    python benchmarks/compare_training.py --run-dir RUN --slower 0.05

A step is a small network's real work and 10 ms of timed waits in its phases; `--slower` lengthens the one in forward.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import torch

from traceml_core.sdk import trace_run

WAITS_MS = {"input_wait": 2.0, "forward": 3.0, "backward": 4.0, "optimizer": 1.0}
STEP_MS = sum(WAITS_MS.values())
BATCH, FEATURES = 16, 64


def main() -> None:
    """Train once; the run folder is what is wanted of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--slower", type=float, default=0.0, help="share of a step's waits by which forward is longer")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = torch.nn.Sequential(torch.nn.Linear(FEATURES, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    forward_ms = WAITS_MS["forward"] + arguments.slower * STEP_MS
    with trace_run(run_dir=arguments.run_dir, report="off") as run:
        run.describe(batch_size=BATCH)
        for features, labels in run.batches(_batches(arguments.steps)):
            with run.step():
                with run.phase("forward"):
                    loss = torch.nn.functional.cross_entropy(network(features), labels)
                    _wait(forward_ms)
                with run.phase("backward"):
                    loss.backward()
                    _wait(WAITS_MS["backward"])
                with run.phase("optimizer"):
                    optimizer.step()
                    optimizer.zero_grad()
                    _wait(WAITS_MS["optimizer"])


def _batches(steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for _ in range(steps):
        _wait(WAITS_MS["input_wait"])
        yield torch.randn(BATCH, FEATURES), torch.randint(0, 10, (BATCH,))


def _wait(milliseconds: float) -> None:
    time.sleep(milliseconds / 1e3)


if __name__ == "__main__":
    main()
