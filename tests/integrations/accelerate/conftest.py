"""Fixtures of the Accelerate tests."""

from __future__ import annotations

from collections.abc import Callable

import accelerate_loops
import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate_loops import MemorySession
from planted_time import PlantedTime

from traceml_hf import accelerate_attachment


@pytest.fixture(autouse=True)
def _fresh_accelerate_state():
    """Accelerate keeps its state in shared dictionaries; no test may see another's."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    PartialState._reset_state()


@pytest.fixture
def sessions(monkeypatch) -> list[MemorySession]:
    """The sessions that were opened, in order; nothing leaves the process."""
    opened: list[MemorySession] = []

    def open_session(*args, **kwargs):
        opened.append(MemorySession(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(accelerate_attachment, "open_session", open_session)
    return opened


@pytest.fixture
def time_passes(monkeypatch) -> Callable[[float], None]:
    """Lets time pass on the clock of the sessions, which stands still otherwise; loops and models wait by it too."""
    planted = PlantedTime()
    monkeypatch.setattr(MemorySession, "now", planted)
    monkeypatch.setattr(accelerate_loops, "wait", planted.passes)
    return planted.passes


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)
