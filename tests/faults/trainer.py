"""A simulated training of one rank, in a process of its own: real runtime, real aggregator, steps that only sleep.

It trains until the file `stop` is there. What it was told to be stored goes into its journal, line by line, so that it
is known even of a rank that is killed; so is how far it has come.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

PLACE = Path(os.environ["SIM_PLACE"])
RANK = int(os.environ["RANK"])
STEP_S = float(os.environ["SIM_STEP_S"])
BLOCK = 10 if STEP_S else 1_000

REAL_TIME_NS = time.time_ns


def jumping_time_ns() -> int:
    """The wall clock, as it is after somebody has set it."""
    jump = PLACE / "clock"
    return REAL_TIME_NS() + (int(float(jump.read_text()) * 1e9) if jump.exists() else 0)


time.time_ns = jumping_time_ns
time.time = lambda: jumping_time_ns() / 1e9

import patience  # noqa: E402
from own_time import Beats  # noqa: E402

from traceml_core.core.identity import RankIdentity  # noqa: E402
from traceml_core.core.phases import Phase  # noqa: E402
from traceml_core.core.settings import resolve_settings  # noqa: E402
from traceml_core.runtime import sender  # noqa: E402
from traceml_core.runtime.outbox import Outbox  # noqa: E402
from traceml_core.runtime.session import open_session  # noqa: E402
from traceml_core.telemetry.facts import RunFacts  # noqa: E402


class JournaledOutbox(Outbox):
    """An outbox that writes down what was acknowledged, and may have a smaller bound."""

    def __init__(self, rank: int, incarnation: int) -> None:
        bound = {"limit_bytes": int(os.environ["SIM_BOUND"])} if "SIM_BOUND" in os.environ else {}
        super().__init__(rank, incarnation, **bound)
        self._journal = (PLACE / f"journal-{rank}").open("a", buffering=1)

    def acknowledge(self, seq: int) -> None:
        for waiting in self._batches:
            if waiting.batch.seq <= seq:
                told = self._incarnation, waiting.batch.seq, waiting.rows, time.monotonic()
                self._journal.write(" ".join(map(str, told)) + "\n")
        super().acknowledge(seq)


class FolderStore:
    """A rendezvous store; a rank whose wire the test holds in its hands is sent there."""

    def set(self, key: str, value: str) -> None:
        path = PLACE / "store" / key.replace("/", ".")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".new").write_text(value)
        path.with_suffix(".new").rename(path)

    def get(self, key: str) -> bytes:
        notice = json.loads((PLACE / "store" / key.replace("/", ".")).read_text())
        if notice["ticket"] is not None and "SIM_VIA" in os.environ:
            notice["ticket"]["endpoint"] = os.environ["SIM_VIA"]
        return json.dumps(notice).encode()

    def check(self, keys: list[str]) -> bool:
        return all((PLACE / "store" / key.replace("/", ".")).exists() for key in keys)


def main() -> None:
    sender.Outbox = JournaledOutbox
    if os.environ["SIM_PATIENT"]:
        patience.wait_patiently()
    nodes, ranks = int(os.environ.get("SIM_NODES", "1")), int(os.environ["WORLD_SIZE"])
    session = open_session(
        resolve_settings(runs_dir=str(PLACE / "runs"), name="sim"),
        RunFacts(framework="manual", device="cpu"),
        RankIdentity(rank=RANK, local_rank=0 if nodes > 1 else RANK, world_size=ranks, nodes=nodes),
        store=FolderStore() if ranks > 1 else None,
    )
    session.clock.leave(Phase.STARTUP)
    session.steps.start_at(int(os.environ.get("SIM_FROM", "0")))
    outbox = session._runtime._sender._outbox
    cost_s = train(session, outbox, (PLACE / f"progress-{RANK}").open("a", buffering=1))
    with Beats() as beats:
        session.close()
    told = {
        "steps": session.steps.steps_done,
        "made": outbox.rows_taken + outbox.rows_dropped + session.steps.dropped,
        "dropped": outbox.rows_dropped + session.steps.dropped,
        "unstored": outbox.rows,
        "close_s": beats.seconds,
        "cost_s": cost_s,
        "peak_kib": peak_kib(),
    }
    print(json.dumps(told))


def train(session, outbox, progress) -> dict[str, float]:
    """Step until told to stop; the CPU time of a block of steps, by whether the aggregator was said to stall.

    It is that of a quiet block, of which a quarter took less: what a crowded machine adds is no cost of training.
    """
    cost_s: dict[str, list[float]] = {}
    while not (PLACE / "stop").exists():
        began_s = time.thread_time()
        for _ in range(BLOCK):
            session.steps.fetch()
            session.clock.enter(Phase.FORWARD)
            if STEP_S:
                time.sleep(STEP_S)
            session.clock.leave(Phase.FORWARD)
            session.steps.micro_batch(4)
            session.steps.optimizer_step()
        spent_s = time.thread_time() - began_s
        cost_s.setdefault("stalled" if (PLACE / "stalled").exists() else "free", []).append(spent_s)
        dropped = outbox.rows_dropped + session.steps.dropped
        progress.write(f"{time.monotonic()} {os.getpid()} {session.steps.steps_done} {dropped}\n")
    return {name: sorted(spent)[len(spent) // 4] for name, spent in cost_s.items()}


def peak_kib() -> int:
    """The most memory that this program has held; `ru_maxrss` also knows what the process held before it was that."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
    sys.exit(0)
