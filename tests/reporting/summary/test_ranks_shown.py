"""Many ranks on the card and in the tables: the worst, the median and how far they are apart, and never a list."""

from __future__ import annotations

import re

import pytest
from run_factory import make_run_folder

from traceml_core.core.phases import Phase
from traceml_core.reporting.card import render_card
from traceml_core.reporting.final import build_summary
from traceml_core.reporting.tables import render_tables


@pytest.fixture(scope="module", params=[2, 256])
def summary(request, tmp_path_factory):
    late = {1: {Phase.FORWARD: 44.0, Phase.GRAD_SYNC: 1.0}}
    waiting = {rank: {Phase.GRAD_SYNC: 41.0} for rank in range(request.param) if rank != 1}
    folder = make_run_folder(
        tmp_path_factory.mktemp("run"), steps=30, ranks=request.param, rank_phases_ms={**late, **waiting}
    )
    return build_summary(folder)


def test_the_card_names_the_late_rank_and_says_how_late_it_is(summary):
    card = render_card(summary)
    assert "[COMPUTE STRAGGLER]" in card
    assert re.search(r"Rank 1 lags in forward \(4\d\.\d ms, the others [34]\.\d\d ms\)", " ".join(card.split()))
    (line,) = [line for line in card.splitlines() if line.startswith(" Ranks ")]
    assert re.search(r"furthest apart in forward: rank 1 4\d\.\d ms, median rank [34]\.\d\d ms", line)


def test_card_and_tables_are_as_long_for_many_ranks_as_for_two(summary):
    assert len(render_card(summary).splitlines()) < 30
    assert max(len(line) for line in render_card(summary).splitlines()) <= 80
    assert len(render_tables(summary).splitlines()) < 80


def test_the_table_sets_each_metrics_worst_rank_against_the_median_rank(summary):
    lines = render_tables(summary).splitlines()
    title = f"  means of {summary.run.world_size} ranks"
    begin = next(place for place, line in enumerate(lines) if line.startswith(title))
    forward = next(line for line in lines[begin:] if line.startswith("  forward_ms"))
    worst, unit, rank, median, _, spread, _ = forward.split()[1:]
    assert (rank, unit) == ("1", "ms")
    assert (float(worst), float(median), float(spread)) == pytest.approx((44, 4, 40), rel=0.05)


def test_one_rank_is_set_against_none(tmp_path):
    alone = build_summary(make_run_folder(tmp_path, steps=30))
    assert "means of" not in render_tables(alone)
    assert " Ranks " not in render_card(alone)
