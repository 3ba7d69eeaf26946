"""The same script with the callback and without: its stdout, its traceback and its weights are the same."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from waiting import LIMIT_S

from traceml_core.reporting.summary import RunSummary, decode_summary

SCRIPTS = Path(__file__).parent / "with_and_without"
FRAMEWORKS = ("lightning", "transformers", "accelerate")
# What frameworks measure themselves, and print: seconds, and things a second.
MEASURED = re.compile(
    rb"\d+:\d+<[\d:?]+, +[\d.?]+(?:it/s|s/it)"  # in progress bars
    rb"|(?<=\]) +(?=[\r\n]|$)"  # which cover with blanks what was longer before
    rb"|'(?:train|eval)_(?:runtime|\w+_per_second)': '?[\d.e+-]+'?"  # in the Trainer's logs
)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_stdout_traceback_and_weights_are_what_they_are_without(framework, tmp_path):
    pytest.importorskip(framework)
    with ThreadPoolExecutor() as both:
        ours, plain = both.map(lambda switch: _run(framework, switch, tmp_path), ("on", "off"))
    assert ours.returncode == plain.returncode == 1
    assert b"weights" in plain.stdout
    assert MEASURED.sub(b"", ours.stdout) == MEASURED.sub(b"", plain.stdout)
    traceback = plain.stderr[plain.stderr.index(b"Traceback") :]
    assert b"The above exception was the direct cause" in traceback
    assert traceback in ours.stderr
    assert b"ValueError" in ours.stderr.replace(traceback, b"")  # the report tells of it as well
    if framework == "transformers":  # its progress bar stands on stderr
        first_training, _, _ = ours.stderr.rpartition(b"recording to")
        assert first_training.index(b"Where the time went") > first_training.rindex(b"it/s]")

    first, second = _recorded(tmp_path / "on")
    assert (first.status, first.steps, first.error) == ("completed", 8, None)
    told = second.error
    assert (second.status, told.type, told.message, told.step) == ("failed", "ValueError", "no such label", 4)


def _run(framework: str, switch: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    place = folder / switch
    place.mkdir()
    script = SCRIPTS / f"{framework}_train.py"
    return subprocess.run([sys.executable, str(script), switch], cwd=place, capture_output=True, timeout=LIMIT_S)


def _recorded(folder: Path) -> list[RunSummary]:
    """The runs of a folder, the oldest first."""
    written = folder.glob("traceml_runs/*/final_summary.json")
    return sorted((decode_summary(path.read_bytes()).run for path in written), key=lambda run: run.started_at)
