"""How often a rank sends: ten times a second, more rarely where very many talk to the same aggregator."""

from __future__ import annotations

import pytest

from traceml_core.runtime.sender import tick_s


@pytest.mark.parametrize("world_size, seconds", [(1, 0.1), (256, 0.1), (512, 0.2), (1_024, 0.4), (100_000, 0.5)])
def test_ranks_of_large_jobs_talk_more_rarely_and_never_less_than_twice_a_second(world_size, seconds):
    assert tick_s(world_size) == pytest.approx(seconds)
