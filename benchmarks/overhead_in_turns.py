"""What our callback adds to each step's main-thread CPU time where the machine's speed changes from run to run.

    torchrun --standalone --nproc-per-node=2 benchmarks/overhead_in_turns.py    # on two ranks; rank 0 tells its own

`overhead.py` compares trainings that follow each other. Two ranks on two cores, and on a machine that others use as
well, differ by more from one training to the next than a callback costs. Here two trainings of one process take turns
of a few steps, so that both meet the same machine. One has the callback, the other an empty one (Accelerate: none).
Beside them a control: two of the latter kind. Which of the two trainings has the callback changes from round to round,
since the first and the second do not cost quite the same.

A training's figure is the 5 % quantile of its steps without the first ones and those beside a change of turns. Printed
are the mean difference of both places with its standard error, and the median. What the callback's background threads
and its aggregator cost both trainings alike is not in it: see `overhead.py` on one rank for that.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import overhead

import training_loops as loops

TURN = 20
BESIDE_A_CHANGE = 3
Training = Callable[[], list[int]]


class Turns:
    """Lets one of two trainings, each in its own thread, do `TURN` steps; then the other."""

    def __init__(self, trainings: tuple[Training, Training]) -> None:
        """Nothing runs before `run`."""
        self._trainings = trainings
        self._going = {0, 1}
        self._turn = 0
        self._changed = threading.Condition()
        self._local = threading.local()
        self._steps: dict[int, list[int]] = {}

    def run(self) -> tuple[list[int], list[int]]:
        """Run both; the CPU nanoseconds of the steps of each."""
        loops.at_step_end = self._at_step_end
        threads = [threading.Thread(target=self._train, args=(place,)) for place in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self._steps[0], self._steps[1]

    def _train(self, place: int) -> None:
        self._local.place, self._local.done = place, 0
        try:
            self._await(place)
            self._steps[place] = self._trainings[place]()
        finally:
            with self._changed:
                self._going.discard(place)
            self._give(1 - place)

    def _at_step_end(self) -> int:
        here = self._local
        here.done += 1
        if here.done % TURN == 0:
            self._give(1 - here.place)
            self._await(here.place)
        return time.thread_time_ns()

    def _give(self, place: int) -> None:
        with self._changed:
            if place in self._going:
                self._turn = place
                self._changed.notify_all()

    def _await(self, place: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._turn == place)


def main() -> None:
    """Measure, and print one table."""
    arguments = _arguments()
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = io.StringIO()
    loops.quiet()
    loops.torch.set_num_threads(1)
    print(f"torch {loops.torch.__version__}, {arguments.rounds} rounds of 2 × {arguments.steps} steps that take turns,")
    print(f"{loops.RANKS} rank(s), {os.cpu_count()} cores, one thread a training")
    print(f"{'':12} {'arm':8} {'CPU a step':>12} {'added CPU':>12} {'standard error':>15} {'median':>12}")
    for framework in arguments.frameworks:
        arms = overhead.ARMS[framework, "ours"]()
        base = arms.get("empty", arms["none"])
        figures: dict[str, list[tuple[float, float]]] = {"control": [], "ours": []}
        for round_ in range(arguments.rounds + 1):
            for name, arm in (("control", base), ("ours", arms["ours"])):
                pair = _pair(arm, base, arguments, is_first=round_ % 2 == 1)
                if round_:  # the first one pays for imports and caches
                    figures[name].append(pair)
        for name, pairs in figures.items():
            _print_arm(framework, name, pairs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", nargs="+", choices=overhead.FRAMEWORKS, default=list(overhead.FRAMEWORKS))
    parser.add_argument("--rounds", type=int, default=20, help="an even number: both places equally often")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--settle", type=int, default=100, help="leave out so many of each training's first steps")
    return parser.parse_args()


def _pair(
    arm: Callable[[int], list[int]], base: Callable[[int], list[int]], arguments: argparse.Namespace, is_first: bool
) -> tuple[float, float]:
    """Microseconds a step of `arm` and of `base`, of which `arm` begins where it `is_first`."""
    trainings = (arm, base) if is_first else (base, arm)
    with loops.silent_streams():
        steps = Turns(tuple(lambda run=run: run(arguments.steps) for run in trainings)).run()
    first, second = (_figure(one, arguments.settle) for one in steps)
    return (first, second) if is_first else (second, first)


def _figure(steps: list[int], settle: int) -> float:
    """The 5 % quantile; the step of this index is the one after so many others and the first."""
    calm = range(BESIDE_A_CHANGE, TURN - 1)
    kept = [cpu_ns for index, cpu_ns in enumerate(steps) if index >= settle and (index + 1) % TURN in calm]
    return statistics.quantiles(kept, n=20)[0] / 1e3


def _print_arm(framework: str, name: str, pairs: list[tuple[float, float]]) -> None:
    added = [mine - other for mine, other in pairs]
    error = statistics.stdev(added) / len(added) ** 0.5
    cpu = statistics.median(mine for mine, _ in pairs)
    line = f"{framework:12} {name:8} {cpu:9.1f} µs {statistics.mean(added):9.1f} µs {error:12.1f} µs"
    print(f"{line} {statistics.median(added):9.1f} µs", flush=True)


if __name__ == "__main__":
    main()
