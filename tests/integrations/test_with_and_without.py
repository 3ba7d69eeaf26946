"""The same script with the callback and without: its stdout, its traceback and its weights are the same."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from waiting import LIMIT_S

SCRIPTS = Path(__file__).parent / "with_and_without"
FRAMEWORKS = ("lightning", "transformers", "accelerate")
# What frameworks measure themselves, and print: seconds, and things a second.
MEASURED = re.compile(
    rb"\d+:\d+<[\d:?]+, +[\d.?]+(?:it/s|s/it)"  # in progress bars
    rb"|(?<=\]) +(?=[\r\n]|$)"  # which cover with blanks what was longer before
    rb"|'(?:train|eval)_(?:runtime|\w+_per_second)': '?[\d.e+-]+'?"  # in the Trainer's logs
)


class Ended(NamedTuple):
    """How the two processes ended: with the callback, and without."""

    ours: subprocess.CompletedProcess[bytes]
    plain: subprocess.CompletedProcess[bytes]


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> Callable[[str], Ended]:
    """Runs a framework's script with and without, side by side, once."""
    done: dict[str, Ended] = {}

    def run(framework: str) -> Ended:
        pytest.importorskip(framework)
        if framework not in done:
            folder = tmp_path_factory.mktemp(framework)
            with ThreadPoolExecutor() as both:
                done[framework] = Ended(*both.map(lambda switch: _run(framework, switch, folder), ("on", "off")))
        return done[framework]

    return run


def _run(framework: str, switch: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    place = folder / switch
    place.mkdir()
    script = SCRIPTS / f"{framework}_train.py"
    return subprocess.run([sys.executable, str(script), switch], cwd=place, capture_output=True, timeout=LIMIT_S)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_stdout_is_byte_for_byte_what_it_is_without(framework, ended):
    ours, plain = ended(framework)
    assert b"weights" in plain.stdout
    assert MEASURED.sub(b"", ours.stdout) == MEASURED.sub(b"", plain.stdout)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_traceback_is_byte_for_byte_what_it_is_without(framework, ended):
    ours, plain = ended(framework)
    assert ours.returncode == plain.returncode == 1
    traceback = plain.stderr[plain.stderr.index(b"Traceback") :]
    assert b"The above exception was the direct cause" in traceback
    assert traceback in ours.stderr
    assert b"ValueError" in ours.stderr.replace(traceback, b"")  # the report tells of it as well
