from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from traceml_core.statistics.buckets import buckets_of, coarser, merge_buckets, span_that_fits
from traceml_core.statistics.sketch import sketch_of, sketches_of
from traceml_core.statistics.trend import evened

# Nanoseconds and bytes: whole numbers whose sums a float holds exactly.
whole = st.one_of(st.just(np.nan), st.integers(0, 2**40).map(float))
rows = arrays.arrays(np.float64, st.tuples(st.integers(1, 40), st.just(3)), elements=whole)
seeds = st.integers(0, 2**31)


def same(first, second):
    assert all(
        np.array_equal(getattr(first, name), getattr(second, name), equal_nan=True) for name in first.__struct_fields__
    )


@given(rows, seeds, st.integers(1, 8))
def test_merging_buckets_in_any_order_gives_equal_counts_sums_and_extremes(values, seed, span):
    random = np.random.default_rng(seed)
    keys = np.sort(random.integers(0, 30, len(values)))
    whole = buckets_of(keys // span, values)
    parts = [buckets_of(keys[part], values[part]) for part in np.array_split(random.permutation(len(values)), 4)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merge_buckets(part, merged)
    same(coarser(merged, span), whole)
    assert whole.rows.sum() == len(values)
    assert np.array_equal(whole.sums.sum(axis=0), np.nansum(values, axis=0))


@given(st.integers(-(2**40), 2**40), st.integers(0, 2**45), st.integers(2, 64))
def test_a_span_that_fits_is_a_power_of_two_times_the_old_one_and_no_larger_than_needed(first, length, limit):
    span = span_that_fits(first, first + length, 4, limit)
    assert (first + length) // span - first // span < limit
    assert span == 4 or (first + length) // (span // 2) - first // (span // 2) >= limit


@given(rows)
def test_sketches_of_columns_are_the_sketches_of_each(values):
    for column, sketch in enumerate(sketches_of(values)):
        alone = sketch_of(values[:, column])
        assert (sketch.count, sketch.zeros, sketch.bins) == (alone.count, alone.zeros, alone.bins)
        assert (sketch.total, sketch.minimum, sketch.maximum) == (alone.total, alone.minimum, alone.maximum)
        assert sketch.first_bin == alone.first_bin


def test_a_sketch_of_columns_leaves_out_what_it_cannot_hold():
    values = np.array([[-1.0, 2.0], [np.inf, 0.0], [3.0, np.nan]])
    assert [sketch.count for sketch in sketches_of(values)] == [1, 2]


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=50), st.floats(1e-3, 1e9))
def test_values_from_one_on_are_counted_give_or_take_those_next_to_it(values, limit):
    counted = sketch_of(np.array(values)).count_from(limit)
    assert sum(value >= limit * 1.021 for value in values) <= counted <= sum(value >= limit / 1.021 for value in values)


def test_a_thinned_sketch_keeps_its_mean_and_its_quantiles():
    sketch = sketch_of(np.repeat([1.0, 5.0, 25.0], 400))
    thin = sketch.thinned(0.25)
    assert thin.count == 300
    assert thin.mean == pytest.approx(sketch.mean)
    assert thin.quantile(0.5) == sketch.quantile(0.5)


def test_a_trend_is_judged_over_the_whole_of_a_series_and_not_over_its_detailed_part():
    rows = np.array([1] * 8 + [4, 4])
    positions = np.array([*range(8), 9.5, 13.5])
    lows = np.array([7.0, 5, 6, 8, 9, 9, 9, 9, 12, 13])
    position, _, low = evened(rows, positions, positions, lows)
    assert position.tolist() == [1.5, 5.5, 9.5, 13.5]
    assert low.tolist() == [5, 9, 12, 13]
    assert evened(np.ones(10, int), positions, positions, lows)[2] is lows
