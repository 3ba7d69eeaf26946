"""Starts trainings of several ranks in processes of their own, and reads what they told and left behind."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import psutil
from own_time import OwnTime
from waiting import LIMIT_S

from traceml_core.history.reader import HistoryReader
from traceml_core.reporting.summary import FinalSummary, decode_summary
from traceml_core.samplers.process_tree import descendants

FITS = str(Path(__file__).parent / "fits.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


@contextmanager
def kept_port() -> Iterator[int]:
    """A port that nobody is given meanwhile, and that a server which may use an address again can listen at."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]


class Told(msgspec.Struct, frozen=True):
    """What a rank said of one training."""

    case: str
    rank: int
    began_s: float
    ended_s: float
    weights: str


class Launched(msgspec.Struct, frozen=True):
    """What came of a command: what the ranks told, what stood on stderr, and the folder that it ran in."""

    folder: Path
    told: list[Told]
    stderr: str

    def of(self, case: str) -> list[Told]:
        """What the ranks told of a training, by rank."""
        return sorted((one for one in self.told if one.case == case), key=lambda one: one.rank)

    def runs(self, case: str) -> list[Path]:
        """The run folders of a training."""
        return sorted(path.parent for path in (self.folder / "runs" / case).glob("*/manifest.json"))

    def summary(self, case: str) -> FinalSummary:
        """The report of a training that left one."""
        (run,) = self.runs(case)
        return decode_summary((run / "final_summary.json").read_bytes())

    def recorded_ranks(self, case: str) -> list[int]:
        """The ranks that rows came from."""
        (run,) = self.runs(case)
        with HistoryReader(run / "telemetry.sqlite") as reader:
            return sorted(set(reader.columns("step_time")["rank"].tolist()))

    def waits_for_others(self, case: str) -> bool:
        """Whether any time went into the wait for other ranks' gradients."""
        (run,) = self.runs(case)
        with HistoryReader(run / "telemetry.sqlite") as reader:
            return bool((reader.columns("step_time")["grad_sync_ns"] > 0).any())

    def most_workers(self, case: str) -> int:
        """The largest number of loader workers that any rank was seen with."""
        (run,) = self.runs(case)
        with HistoryReader(run / "telemetry.sqlite") as reader:
            return int(reader.columns("process")["workers"].max())


def environment_of(**variables: str) -> dict[str, str]:
    """The environment of a process that is to be started."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **variables}


def wait_all(processes: Sequence[subprocess.Popen[str]], folder: Path) -> Launched:
    """Wait for processes that make up a job."""
    outputs = [process.communicate(timeout=3 * LIMIT_S) for process in processes]
    errors = "".join(error for _, error in outputs)
    assert [process.returncode for process in processes] == [0] * len(processes), errors
    # Forked ranks share a pipe and may begin in the middle of a line.
    told = [one for output, _ in outputs for one in re.findall(r"\{[^{}]*\}", output)]
    return Launched(folder, [msgspec.json.decode(one, type=Told) for one in told], errors)


def begin(command: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start one of them."""
    return subprocess.Popen(
        list(command),
        cwd=folder,
        env=environment_of(**(variables or {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch(command: Sequence[str], folder: Path) -> Launched:
    """Run a command to its end."""
    return wait_all([begin(command, folder)], folder)


def launch_watched(command: Sequence[str], folder: Path) -> tuple[Launched, OwnTime]:
    """Run a command to its end; and the time that it and all that it started did not spend waiting for a core."""
    job = begin(command, folder)
    family = {job.pid: psutil.Process(job.pid)}

    def members() -> list[psutil.Process]:
        for pid in descendants(job.pid):
            with suppress(psutil.NoSuchProcess):
                family.setdefault(pid, psutil.Process(pid))
        return list(family.values())

    with OwnTime(members) as own_time:
        return wait_all([job], folder), own_time
