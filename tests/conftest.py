"""What every test may use: the run and summary factories, importable from any folder, and the check of a summary."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Scripts that tests start find the packages as the tests do, installed or not.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
sys.path += [str(Path(__file__).parent / "reporting"), str(Path(__file__).parent / "reporting" / "summary")]


@pytest.fixture
def assert_valid_summary() -> Callable[..., dict[str, Any]]:
    """Fails unless a summary (the object, or the file) fits the committed schema; gives its JSON."""
    from validation import assert_valid_summary

    return assert_valid_summary
