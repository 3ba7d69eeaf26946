"""What every test may use: the run and summary factories, importable from any folder, and the check of a summary."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import patience
import pytest
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent
# Whoever starts the tests in the background has SIGINT ignored, and scripts that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Scripts that tests start find the packages as the tests do, installed or not, and `patience`.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH"))))
sys.path += [str(HERE / "reporting"), str(HERE / "reporting" / "summary"), str(HERE / "display")]

# How long an example takes says something of the machine alone. The same code meets the same examples, so that nobody's
# change is refused for a case that it did not bring up; `--hypothesis-profile=explore` looks for new ones.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("explore"), derandomize=True)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _the_environment_stays() -> Iterator[None]:
    """What a framework puts into the environment (Transformers: that models are to be compiled) goes with its test."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def patient(monkeypatch) -> None:
    """Runs of this process wait for their report as long as a crowded machine takes to make it."""
    patience.wait_patiently(monkeypatch.setattr)


@pytest.fixture
def assert_valid_summary() -> Callable[..., dict[str, Any]]:
    """Fails unless a summary (the object, or the file) fits the committed schema; gives its JSON."""
    from validation import assert_valid_summary

    return assert_valid_summary
