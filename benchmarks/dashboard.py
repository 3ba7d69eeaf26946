"""What `mode="dashboard"` costs training, with a page open that follows the run, against `mode="summary"`.

    OMP_NUM_THREADS=1 python benchmarks/dashboard.py

Each round trains both in one process, in turn. Figures are those of a run's later half, when both have started up:
main-thread CPU time a step (20 % quantile) and wall time a step (median).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import lightning

import training_loops as loops
from traceml_lightning import TraceMLCallback

MODES = ("summary", "dashboard")
ADDRESS = re.compile(r"http://\S+")
FOLLOWER = Path(__file__).with_name("page_follower.py")


class Figure(NamedTuple):
    """Microseconds a step in a run's later half."""

    cpu: float
    wall: float


class Visitor(lightning.Callback):
    """Notes when steps end; where there is a dashboard, has another process open its page and follow it."""

    def __init__(self, said: io.StringIO) -> None:
        self.moments: list[int] = []
        self.follower: subprocess.Popen[str] | None = None
        self._said = said

    def on_train_start(self, *_: object) -> None:
        """The address was said when the run was opened."""
        found = ADDRESS.search(self._said.getvalue())
        if found is not None:
            command = [sys.executable, str(FOLLOWER), found.group()]
            self.follower = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def on_train_batch_end(self, *_: object) -> None:
        """A step has ended."""
        self.moments.append(time.perf_counter_ns())


def train(mode: str, steps: int, runs_dir: str) -> tuple[Figure, int]:
    """One run; its figure, and how often the open page was given something new."""
    said = io.StringIO()
    visitor = Visitor(said)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        spent = loops.lightning_steps(steps, [TraceMLCallback(runs_dir=runs_dir, mode=mode), visitor])
    news = 0 if visitor.follower is None else int(visitor.follower.communicate(timeout=60)[0])
    passed = [after - before for before, after in zip(visitor.moments, visitor.moments[1:], strict=False)]
    later = slice(len(passed) // 2, None)
    return Figure(statistics.quantiles(spent[later], n=5)[0] / 1e3, statistics.median(passed[later]) / 1e3), news


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=10_000)
    arguments = parser.parse_args()
    loops.quiet()
    loops.torch.set_num_threads(1)
    figures: dict[str, list[Figure]] = {mode: [] for mode in MODES}
    news: list[int] = []
    with tempfile.TemporaryDirectory() as runs_dir:
        for index in range(arguments.rounds + 1):
            for mode in MODES if index % 2 else MODES[::-1]:
                figure, seen = train(mode, arguments.steps, runs_dir)
                if index:  # the first round pays for imports and caches
                    figures[mode].append(figure)
                    news += [seen] if mode == "dashboard" else []
    updates = f"the page was given {min(news)} to {max(news)} updates a run"
    print(f"{arguments.rounds} rounds of {arguments.steps} steps; {updates}")
    for name in Figure._fields:
        plain, shown = ([getattr(one, name) for one in figures[mode]] for mode in MODES)
        low, middle, high = statistics.quantiles([b - a for a, b in zip(plain, shown, strict=True)], n=4)
        sides = f"summary {statistics.median(plain):7.1f} µs, dashboard {statistics.median(shown):7.1f} µs"
        print(f"{name:5} a step: {sides}; difference {middle:+6.1f} µs, quartiles {low:+.1f} to {high:+.1f}")


if __name__ == "__main__":
    main()
