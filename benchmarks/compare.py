"""How far `traceml compare` can be trusted: identical trainings, and trainings that are slower by a known share.

    python benchmarks/compare.py --pool FOLDER
    python benchmarks/compare.py --pool FOLDER --peer PEER_PYTHON      # beside the known tool's compare

Records a pool of trainings, each in a process of its own, all kinds in turn (what the pool holds already is not
recorded again): two identical ones of real work, two identical ones whose step costs a known time by timed waits, and
of those one that is 5 % slower and one that is 1 % slower. Then it compares

- pairs of a turn, one run a side;
- sides of five runs, drawn at random from the pool: five turns, and of each turn one run for either side. Draws share
  runs, so that their number makes the rates no more certain than the number of turns does.

Exit code 1 where the promises of docs/comparing.md do not hold.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from compare_peer import print_peer, record_peer
from traceml_core.reporting.compare.core import compare
from traceml_core.reporting.compare.metric_row import ComparedSection
from traceml_core.reporting.compare.model import Comparison
from traceml_core.reporting.compare.sections import COMPARED_SECTIONS
from traceml_core.reporting.stored_summary import load_summary
from traceml_core.reporting.summary import FinalSummary

TRAINING = Path(__file__).with_name("compare_training.py")
KINDS: dict[str, tuple[str, ...]] = {
    "real-a": ("--real",),
    "timed-a": (),
    "slower-5": ("--slower", "0.05"),
    "real-b": ("--real",),
    "timed-b": (),
    "slower-1": ("--slower", "0.01"),
}
# What the verdict rests on; the parts of a step only explain it.
DECIDING = [
    ComparedSection(section.name, tuple(row for row in section.rows if row.decides)) for section in COMPARED_SECTIONS
]
Pool = dict[str, list[FinalSummary]]


class Promise(msgspec.Struct, frozen=True):
    """What is compared at which margin, and how often which verdicts may be given at least or at most."""

    title: str
    before: str
    after: str
    margin_share: float
    runs: int
    verdicts: tuple[str, ...]
    least_share: float = 0.0
    most_share: float = 1.0


MOVED = ("REGRESSION", "IMPROVEMENT")
PROMISES = (
    Promise("real work, identical, 1 run a side", "real-a", "real-b", 0.05, 1, MOVED, most_share=0.05),
    Promise("real work, identical, 1 run a side", "real-a", "real-b", 0.02, 1, MOVED, most_share=0.05),
    Promise("real work, identical, 5 runs a side", "real-a", "real-b", 0.05, 5, MOVED, most_share=0.05),
    Promise("real work, identical, 5 runs a side", "real-a", "real-b", 0.02, 5, MOVED, most_share=0.05),
    Promise("timed, identical, 1 run a side", "timed-a", "timed-b", 0.05, 1, MOVED, most_share=0.05),
    Promise("timed, identical, 1 run a side", "timed-a", "timed-b", 0.02, 1, MOVED, most_share=0.05),
    Promise("timed, identical, 5 runs a side", "timed-a", "timed-b", 0.05, 5, MOVED, most_share=0.05),
    Promise("timed, identical, 5 runs a side", "timed-a", "timed-b", 0.02, 5, MOVED, most_share=0.05),
    Promise("5% slower, 5 runs a side", "timed-a", "slower-5", 0.02, 5, ("REGRESSION",), least_share=0.9),
    Promise("1% slower, 5 runs a side", "timed-a", "slower-1", 0.05, 5, ("REGRESSION",), most_share=0.0),
    Promise("1% slower, 1 run a side", "timed-a", "slower-1", 0.05, 1, ("REGRESSION",), most_share=0.0),
    Promise("5% slower, 1 run a side (power)", "timed-a", "slower-5", 0.02, 1, ("REGRESSION",)),
)


def main() -> None:
    """Record what is missing, compare, print, and exit with 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, help="where the runs are kept; a temporary folder where not given")
    parser.add_argument("--turns", type=int, default=20, help="runs of each kind")
    parser.add_argument("--draws", type=int, default=500, help="comparisons of five runs a side")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--peer", type=Path, help="the Python of an environment with the known tool and torch")
    parser.add_argument("--peer-turns", type=int, default=20, help="runs of each kind under the known tool")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.pool or Path(temporary)
        record(folder, arguments.turns)
        if arguments.peer is not None:
            print_beside(arguments.peer, folder, arguments.peer_turns)
        pool = {kind: [load_summary(_run(folder, kind, turn)) for turn in range(arguments.turns)] for kind in KINDS}
    print_spreads(pool)
    held = [print_promise(promise, pool, arguments.draws, arguments.seed) for promise in PROMISES]
    sys.exit(0 if all(held) else 1)


def record(folder: Path, turns: int) -> None:
    """Train what the pool lacks, all kinds in turn, so that a busy minute meets all of them."""
    for turn in range(turns):
        for kind, options in KINDS.items():
            run = _run(folder, kind, turn)
            if not (run / "final_summary.json").exists():
                command = [sys.executable, str(TRAINING), "--run-dir", str(run), *options]
                subprocess.run(command, check=True)


def print_beside(python: Path, folder: Path, turns: int) -> None:
    """What the known tool says of the same trainings, recorded by itself."""
    record_peer(python, folder, KINDS, turns)
    for before, after in sorted({(promise.before, promise.after) for promise in PROMISES}):
        print_peer(python, folder, before, after, turns)


def print_spreads(pool: Pool) -> None:
    """How much identical runs differ: what the spreads of the policy were taken from."""
    print("spread of identical runs, standard deviation of a single run: over all, and from one to the next of a turn")
    for work in ("real", "timed"):
        for row in (row for section in DECIDING for row in section.rows):
            readings = [[row.read(run) for run in pool[f"{work}-{side}"]] for side in "ab"]
            if any(reading is None for side in readings for reading in side):
                continue
            a, b = (
                np.log([np.average(one.values, weights=one.counts) for one in side if one is not None])
                for side in readings
            )
            over_all, in_turn = np.concatenate([a, b]).std(ddof=1), (b - a).std(ddof=1) / np.sqrt(2)
            print(f"  {work:6} {row.label:16} {over_all:7.2%} {in_turn:7.2%}")


def print_promise(promise: Promise, pool: Pool, draws: int, seed: int) -> bool:
    """Compare as promised, print how often which verdict was given; whether the promise held."""
    before, after = pool[promise.before], pool[promise.after]
    turns = len(before)
    if promise.runs == 1:
        chosen: Sequence[Sequence[int]] = [[turn] for turn in range(turns)]
    else:
        random = np.random.default_rng(seed)
        chosen = [random.choice(turns, promise.runs, replace=False) for _ in range(draws)]
    compared = [_compare(before, after, turns_of, promise.margin_share) for turns_of in chosen]
    counted = Counter(one.verdict for one in compared)
    share = sum(counted[verdict] for verdict in promise.verdicts) / len(compared)
    held = promise.least_share <= share <= promise.most_share
    found = ", ".join(f"{verdict} {counted[verdict]}" for verdict in sorted(counted))
    print(
        f"{promise.title:36} margin {promise.margin_share:.0%}  {found} of {len(compared)}{'' if held else '  BROKEN'}"
    )
    return held


def _compare(
    before: Sequence[FinalSummary], after: Sequence[FinalSummary], turns: Sequence[int], margin_share: float
) -> Comparison:
    return compare([before[turn] for turn in turns], [after[turn] for turn in turns], margin_share, DECIDING)


def _run(folder: Path, kind: str, turn: int) -> Path:
    return folder / f"{kind}-{turn:03d}"


if __name__ == "__main__":
    main()
