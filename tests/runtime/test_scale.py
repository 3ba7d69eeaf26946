"""The scale benchmark in small: real aggregator, sockets and SQLite; nothing lost, the report of all, sizes bounded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
scale = pytest.importorskip("scale")


def test_ranks_that_send_as_fast_as_they_can_lose_nothing():
    served = scale.flood(2, ranks=4)
    assert (served.sent, served.rows, served.dropped) == (16_000, 16_000, 0)


def test_ranks_that_send_step_by_step_lose_nothing():
    served = scale.paced(12, 2.0)
    assert served.rows == served.sent > 12 * 2 * 5
    assert served.dropped == 0


def test_a_history_does_not_grow_with_its_run_and_the_report_speaks_of_all_of_it(tmp_path):
    shorter, longer = (scale.long_run(2, steps, tmp_path / str(steps)) for steps in (12_000, 48_000))
    assert (shorter.reported_steps, longer.reported_steps) == (12_000, 48_000)
    assert longer.disk_mb < 1.3 * shorter.disk_mb
