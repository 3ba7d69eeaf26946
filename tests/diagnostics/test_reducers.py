from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from traceml_core.statistics.habit import habitual_sum, habitual_total, occasions
from traceml_core.statistics.ranked import median_rank, ranked_metric
from traceml_core.statistics.reduced import reduced
from traceml_core.statistics.sketch import sketch_of
from traceml_core.statistics.trend import floor_growth


def table(values, ranks):
    return reduced("toy", {"rank": ranks, "value": values})


amounts = arrays.arrays(np.float64, st.integers(0, 60), elements=st.floats(0, 1e12))


def test_the_median_rank_of_two_is_the_lower_one():
    assert (median_rank([9.0, 1.0]), median_rank([5.0, 9.0, 1.0]), median_rank([4.0])) == (1.0, 5.0, 4.0)


@given(amounts)
def test_a_habit_is_never_more_than_the_sum(values):
    assert 0 <= habitual_total(sketch_of(values), 3) <= values.sum() * (1 + 1e-12)


def test_what_happened_twice_is_no_habit():
    values = np.zeros(100)
    values[[3, 99]] = 500.0
    assert habitual_total(sketch_of(values), 3) == pytest.approx(0, abs=10)
    assert occasions(sketch_of(values)) == 2


def test_one_long_time_among_many_short_ones_counts_as_a_short_one():
    values = np.full(100, 5.0)
    values[50] = 1_000.0
    assert habitual_total(sketch_of(values), 3) == pytest.approx(500, rel=1e-3)


def test_one_long_time_does_not_hide_how_often_there_were_short_ones():
    values = np.zeros(1_000)
    values[::20] = 0.2
    values[500] = 4.0
    assert occasions(sketch_of(values), 3) == 50
    assert occasions(sketch_of(values)) == 1


def test_what_is_no_habit_is_counted_by_its_largest():
    assert occasions(sketch_of(np.array([0.0, 0.0, 0.0, 5.0])), 3) == 1
    assert occasions(sketch_of(np.array([5.0, 4.0])), 3) == 2
    assert occasions(sketch_of(np.zeros(4)), 3) == 0


def test_three_equal_times_are_a_habit_in_full():
    values = np.zeros(100)
    values[[10, 20, 30]] = 7.0
    assert habitual_sum(values, 3) == 21
    assert habitual_total(sketch_of(values), 3) == pytest.approx(21, rel=0.01)
    assert occasions(sketch_of(values)) == 3


def test_a_metric_is_pooled_over_ranks_and_names_the_worst():
    metric = ranked_metric(table(np.array([1.0, 3.0, 10.0, np.nan]), np.array([0, 0, 1, 1])), "value", scale=2.0)
    assert metric.pooled.count == 3
    assert metric.rank_means == {0: 4.0, 1: 20.0}
    assert metric.worst_rank == 1


def test_one_rank_alone_is_not_the_worst():
    assert ranked_metric(table(np.ones(3), np.zeros(3, int)), "value").worst_rank is None


def test_a_metric_that_nobody_measured_is_none():
    assert ranked_metric(table(np.full(3, np.nan), np.zeros(3, int)), "value") is None


def test_a_straight_rise_is_spread_evenly():
    growth = floor_growth(np.arange(120), 5.0 * np.arange(120), 12)
    assert growth.per_position == pytest.approx(5.0)
    assert growth.rising_pairs == 1.0
    assert growth.smallest_third == pytest.approx(1 / 3, abs=0.02)
    assert growth.largest_jump == pytest.approx(1 / 11, abs=0.01)


def test_what_is_given_back_in_the_end_is_no_rise():
    values = np.concatenate([np.arange(100.0), np.zeros(20)])
    assert floor_growth(np.arange(120), values, 12).rise == 0


@given(arrays.arrays(np.float64, st.integers(24, 80), elements=st.floats(0, 1e9)))
def test_shares_of_a_rise_are_shares(values):
    growth = floor_growth(np.arange(values.size), values, 8)
    for share in (growth.smallest_third, growth.last_third, growth.largest_jump):
        assert -1e-9 <= share <= 1 + 1e-9
    assert growth.rise >= 0


def test_too_few_values_have_no_growth():
    assert floor_growth(np.arange(10), np.arange(10.0), 6) is None
