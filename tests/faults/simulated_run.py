"""A run of simulated ranks that a test may do anything to, and what has to be true of it afterwards."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import psutil
from waiting import LIMIT_S, wait_for

from traceml_core.reporting.summary import FinalSummary, decode_summary

ROOT = Path(__file__).parents[2]
# What a rank that is killed may take with it, and how long an aggregator may outlive its owner.
LOST_S = 2.0
REPORT_LIMIT_S = 10.0
# A rank that has heard an ack so shortly ago is not waiting for an aggregator that gets no core.
HEARD_S = 0.5


class SimulatedRun:
    """Some ranks in processes of their own. `ended` holds what those that ended by themselves had to tell."""

    def __init__(
        self, place: Path, ranks: int = 2, step_s: float = 0.004, *, is_patient: bool = True, **variables: str
    ) -> None:
        """A run that is not started; `variables` are for the environment of all ranks.

        Ranks that are patient wait for their report as long as a crowded machine takes to make it.
        """
        self.place = place
        self.ranks = ranks
        self.is_patient = is_patient
        self.processes: dict[int, subprocess.Popen[str]] = {}
        self.ended: dict[int, dict] = {}
        self.said: dict[int, str] = {}
        self.killed: list[tuple[int, int, float]] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRACEML_", "PYTHON"))}
        self._environment = {
            **kept,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
            "WORLD_SIZE": str(ranks),
            "SIM_PLACE": str(place),
            "SIM_STEP_S": str(step_s),
            **variables,
        }

    def set(self, **variables: str) -> None:
        """Set variables for ranks that are started from now on."""
        self._environment.update(variables)

    def start(self, rank: int, command: tuple[str, ...] = (), **variables: str) -> None:
        """Start one rank, `command` in front of it."""
        self.processes[rank] = subprocess.Popen(
            [*command, sys.executable, str(Path(__file__).with_name("trainer.py"))],
            env={**self._environment, "RANK": str(rank), "SIM_PATIENT": "1" * self.is_patient, **variables},
            cwd=self.place,
            stdout=subprocess.PIPE,
            stderr=(self.place / f"said-{rank}").open("a"),
            text=True,
        )

    def start_all(self) -> None:
        """Start every rank, and wait until rows of each are stored."""
        for rank in range(self.ranks):
            self.start(rank)
        for rank in range(self.ranks):
            self.wait_for_rows(rank)

    def wait_for_rows(self, rank: int, more: int = 1) -> None:
        """Wait until so many more batches of this rank are stored."""
        enough = len(self.acked(rank)) + more
        wait_for(lambda: len(self.acked(rank)) >= enough)

    def kill(self, rank: int) -> None:
        """Kill a rank with SIGKILL, at a moment at which its aggregator answers."""
        at_s = self.wait_for_answers(rank)
        process = self.processes.pop(rank)
        process.kill()
        self.killed.append((rank, process.pid, at_s))
        process.communicate()

    def wait_for_answers(self, rank: int) -> float:
        """Wait until this rank has just heard an ack; the moment."""
        return wait_for(lambda: now_s if (now_s := time.monotonic()) - self.heard_s(rank) < HEARD_S else 0.0)

    def aggregator(self) -> psutil.Process:
        """The aggregator, as soon as there is one that runs."""
        return wait_for(lambda: next(iter(self.aggregators()), None))

    def aggregators(self) -> list[psutil.Process]:
        """All aggregators of this run."""
        return [process for process in self.left() if "aggregator.service" in " ".join(command_of(process))]

    def left(self) -> list[psutil.Process]:
        """Every process of this run that still lives."""
        return [process for process in psutil.process_iter() if place_of(process) == str(self.place)]

    def end(self) -> None:
        """Let every rank that lives end, and hear what it tells."""
        (self.place / "stop").touch()
        for rank, process in self.processes.items():
            out, _ = process.communicate(timeout=LIMIT_S)
            assert process.returncode == 0, (rank, process.returncode, self.said_by(rank))
            self.ended[rank] = json.loads(out)

    def close(self) -> None:
        """Whatever happened: leave nobody behind."""
        for process in self.left():
            process.kill()
        for process in self.processes.values():
            process.communicate()

    def said_by(self, rank: int) -> str:
        """What the rank wrote to stderr."""
        path = self.place / f"said-{rank}"
        return path.read_text() if path.exists() else ""

    @property
    def folder(self) -> Path:
        """The run folder."""
        (path,) = [path for path in (self.place / "runs").iterdir() if path.is_dir()]
        return path

    def history_bytes(self) -> int:
        """The size of the largest file of the history: no file may grow beyond it where the disk is full."""
        return max(path.stat().st_size for path in self.folder.glob("telemetry.sqlite*"))

    def is_behind(self) -> bool:
        """Whether the aggregator could not write something."""
        return "writing the history failed" in (self.folder / "errors.log").read_text()

    def acked(self, rank: int) -> list[tuple[int, int, int]]:
        """What this rank was told to be stored: incarnation, seq and rows of each batch."""
        return [tuple(map(int, line[:3])) for line in self._lines(f"journal-{rank}")]

    def heard_s(self, rank: int) -> float:
        """When this rank last heard an ack."""
        return max((float(at_s) for *_, at_s in self._lines(f"journal-{rank}")), default=0.0)

    def steps_done(self, pid: int, rank: int, at_s: float) -> int:
        """How many steps that process had done at a moment."""
        done = [steps for told_s, who, steps, _ in self.progress(rank) if who == pid and told_s <= at_s]
        return int(max(done, default=0))

    def wait_for_drops(self, rank: int) -> None:
        """Wait until this rank holds as much as it may, and drops what is more, for some blocks of steps."""
        before = self.progress(rank)
        dropped = before[-1][3] if before else 0
        wait_for(lambda: len(now := self.progress(rank)) > len(before) + 3 and now[-1][3] > dropped)

    def progress(self, rank: int) -> list[tuple[float, ...]]:
        """What was noted after each block of steps: when, by which process, steps done, rows dropped."""
        return [tuple(map(float, line)) for line in self._lines(f"progress-{rank}")]

    def _lines(self, name: str) -> list[list[str]]:
        """The words of each line that a rank has written whole."""
        path = self.place / name
        text = path.read_text() if path.exists() else ""
        return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]

    def summary(self) -> FinalSummary:
        """The final summary."""
        return decode_summary((self.folder / "final_summary.json").read_bytes())

    def wait_until_nobody_is_left(self) -> None:
        """No orphan stays."""
        wait_for(lambda: not self.left())


class Stored:
    """What a run folder's history holds."""

    def __init__(self, folder: Path) -> None:
        """Read it all."""
        with closing(sqlite3.connect(folder / "telemetry.sqlite")) as connection:
            self.ranks = {
                source: (rank, incarnation, pid, status)
                for source, rank, incarnation, pid, status in connection.execute(
                    "SELECT source, rank, incarnation, pid, status FROM ranks"
                )
            }
            self.batches: Counter[tuple[int, int]] = Counter()
            for table in row_tables(connection):
                for source, seq, rows in connection.execute(
                    f'SELECT source, seq, count(*) FROM "{table}" GROUP BY source, seq'
                ):
                    self.batches[self.ranks[source][1], seq] += rows
            self.steps: dict[int, list[int]] = {self.ranks[source][2]: [] for source in self.ranks}
            for source, step in connection.execute("SELECT source, step FROM step_time WHERE step IS NOT NULL"):
                self.steps[self.ranks[source][2]].append(step)
            self.times_s: dict[tuple[str, int], list[float]] = {}
            for table, column in (("step_time", "started_ns"), ("process_memory", "at_ns"), ("system", "at_ns")):
                for source, at_ns in connection.execute(f'SELECT source, {column} FROM "{table}" ORDER BY rowid'):
                    self.times_s.setdefault((table, source), []).append(at_ns / 1e9)

    @property
    def rows(self) -> int:
        """How many rows there are in all."""
        return self.batches.total()


def row_tables(connection: sqlite3.Connection) -> list[str]:
    """The tables that hold rows as they were sent."""
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = {name: {row[1] for row in connection.execute(f'PRAGMA table_info("{name}")')} for name in names}
    return [name for name in names if {"source", "seq"} <= columns[name]]


def check(run: SimulatedRun, *, lost: bool = False) -> tuple[FinalSummary, Stored]:
    """What holds after every fault: what was acked is there once and in the report, and the report tells no lies.

    `lost` says that rows may have been lost on ranks that ended by themselves; then they are counted.
    """
    run.wait_until_nobody_is_left()
    summary, stored = run.summary(), Stored(run.folder)
    for rank in range(run.ranks):
        for incarnation, seq, rows in run.acked(rank):
            assert stored.batches[incarnation, seq] == rows, f"rank {rank}, batch {seq}"
    assert summary.telemetry.rows_received == stored.rows
    assert summary.telemetry.incarnations == len(stored.ranks)
    for pid, steps in stored.steps.items():
        assert len(set(steps)) == len(steps), f"process {pid} has a step twice"
    by_rank: dict[int, set[int]] = {}
    for rank, _, pid, _ in stored.ranks.values():
        by_rank.setdefault(rank, set()).update(stored.steps[pid])
    assert summary.run.steps == max(map(len, by_rank.values()), default=0)
    for rank, told in run.ended.items():
        pid = run.processes[rank].pid
        if not lost:
            assert len(stored.steps[pid]) == told["steps"], f"rank {rank}"
            assert (told["dropped"], told["unstored"]) == (0, 0)
        assert run.is_patient or told["close_s"] < 5.5
    for rank, pid, at_s in run.killed:
        assert len(stored.steps.get(pid, [])) >= run.steps_done(pid, rank, at_s - LOST_S), f"killed rank {rank}"
    dropped = sum(told["dropped"] + told["unstored"] for told in run.ended.values())
    assert summary.telemetry.rows_lost == dropped
    return summary, stored


def command_of(process: psutil.Process) -> list[str]:
    """Its arguments; none where it has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def place_of(process: psutil.Process) -> str | None:
    """The place of the run that it belongs to; None where it has ended, belongs to no run, or is somebody else's."""
    try:
        return process.environ().get("SIM_PLACE") if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None
