"""A callback on some ranks only: the card names who is missing, and whose the numbers are."""

from __future__ import annotations

import pytest
from summary_factory import make_summary

from traceml_core.reporting.card import render_card
from traceml_core.reporting.html.view import page_view
from traceml_core.reporting.recorded_ranks import missing_ranks_note
from traceml_core.reporting.summary import RankSummary


def summary_of(recorded, world_size):
    summary = make_summary(world_size=world_size)
    summary.sections["step_time"].ranks.extend(RankSummary(rank=rank, metrics={}) for rank in recorded)
    return summary


@pytest.mark.parametrize(
    ("recorded", "world_size", "said"),
    [
        ([0], 2, "rank 1 was not recorded; the numbers are of the other."),
        ([0, 2], 4, "ranks 1 and 3 were not recorded; the numbers are of the other 2."),
        (range(8), 1024, "ranks 8, 9, 10, 11 and 1,012 more were not recorded; the numbers are of the other 8."),
    ],
)
def test_ranks_that_are_missing_are_named(recorded, world_size, said):
    assert missing_ranks_note(summary_of(recorded, world_size)).startswith(said)


@pytest.mark.parametrize(("recorded", "world_size"), [([0, 1], 2), ([0], 1), ([], 2)])
def test_nothing_is_said_where_all_are_there_or_nobody_is(recorded, world_size):
    assert missing_ranks_note(summary_of(recorded, world_size)) is None


def test_the_card_says_it_and_of_how_many_ranks_the_mean_is():
    card = render_card(summary_of([0, 2, 3], 4))
    assert "rank 1 was not recorded" in card
    assert "mean of 3 ranks" in card


def test_the_page_says_the_same_of_the_mean():
    assert page_view(summary_of([0, 2, 3], 4)).budget_total.endswith(", mean of 3 ranks")
