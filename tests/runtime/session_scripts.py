"""Trainings in processes of their own, as a user starts them: a loop that a session watches, and how it ended."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
from waiting import LIMIT_S

from traceml_core.history.database import HistoryUnreadableError
from traceml_core.history.reader import HistoryReader
from traceml_core.reporting.summary import FinalSummary, decode_summary

ROOT = str(Path(__file__).parents[2])
PATH = os.pathsep.join((ROOT, str(Path(__file__).parents[1])))

# What every script begins with. `train` steps through a loop as an adapter would.
LOOP = """
import os, sys, time
import patience
from traceml_core.core.identity import RankIdentity
from traceml_core.core.phases import Phase
from traceml_core.core.settings import resolve_settings
from traceml_core.runtime.session import open_session
from traceml_core.telemetry.facts import RunFacts

patience.wait_patiently()

def open_run(**options):
    session = open_session(resolve_settings(), RunFacts(framework="manual", device="cpu"), **options)
    session.clock.leave(Phase.STARTUP)
    return session

def train(session, steps, step_s=0.001):
    for _ in range(steps):
        session.steps.fetch()
        session.clock.enter(Phase.FORWARD)
        time.sleep(step_s)
        session.clock.leave(Phase.FORWARD)
        session.steps.micro_batch(4)
        session.steps.optimizer_step()
"""


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """A clean environment: this checkout and `patience` on the path, no TRACEML_ variables but the given ones."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRACEML_", "PYTHON"))}
    return {**kept, "PYTHONPATH": PATH, "OMP_NUM_THREADS": "1", "TRACEML_RUNS_DIR": str(folder / "runs"), **variables}


def start_script(
    folder: Path, body: str, *, before: str = "", name: str = "train.py", cwd: Path | None = None, **variables: str
) -> subprocess.Popen[str]:
    """Start `before`, the common beginning, and `body` as one script."""
    script = folder / name
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(before + LOOP + textwrap.dedent(body))
    return subprocess.Popen(
        [sys.executable, str(script)],
        cwd=cwd or folder,
        env=environment(folder, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_script(folder: Path, body: str, **options) -> subprocess.CompletedProcess[str]:
    """Run `body` to its end."""
    process = start_script(folder, body, **options)
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_folder(folder: Path) -> Path:
    """The only run folder of the runs made under `folder`."""
    (path,) = [path for path in (folder / "runs").iterdir() if path.is_dir()]
    return path


def summary_in(path: Path) -> FinalSummary:
    """A run folder's final summary."""
    return decode_summary((path / "final_summary.json").read_bytes())


def steps_in(path: Path) -> int:
    """How many steps a run folder's history holds; none where there is no history yet."""
    try:
        history = HistoryReader(path / "telemetry.sqlite")
    except (OSError, HistoryUnreadableError):
        return 0
    return int((history.columns("step_time", ["step"])["step"] > 0).sum())


def aggregators_of(folder: Path) -> list[psutil.Process]:
    """The aggregators that hold a file under `folder` open."""
    found = []
    for process in psutil.process_iter():
        try:
            if "traceml_core.aggregator.service" in " ".join(process.cmdline()) and any(
                file.path.startswith(str(folder)) for file in process.open_files()
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found
