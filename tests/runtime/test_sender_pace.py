"""How often a rank sends: ten times a second, more rarely where very many talk to the same aggregator."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from traceml_core.core.phases import Phase
from traceml_core.history.reader import HistoryReader
from traceml_core.runtime.sender import tick_s


@pytest.mark.parametrize("world_size, seconds", [(1, 0.1), (256, 0.1), (512, 0.2), (1_024, 0.4), (100_000, 0.5)])
def test_ranks_of_large_jobs_talk_more_rarely_and_never_less_than_twice_a_second(world_size, seconds):
    assert tick_s(world_size) == pytest.approx(seconds)


def test_a_training_that_never_lets_go_of_the_interpreter_for_long_is_watched_and_heard_all_the_same(open_run):
    """Plain Python with a short system call a step: without a word, it would keep every other thread waiting."""
    session = open_run(report="off")
    until_s = time.monotonic() + 4.0
    while time.monotonic() < until_s:
        session.steps.fetch()
        session.clock.enter(Phase.FORWARD)
        sum(range(20_000))
        Path("enough").exists()
        session.clock.leave(Phase.FORWARD)
        session.steps.optimizer_step()
    assert session.live_verdict() is not None
    session.close()
    with HistoryReader(session.folder / "telemetry.sqlite") as reader:
        looked_s = reader.columns("process_memory")["at_ns"] / 1e9
    assert np.diff(looked_s).max() < 2.0
