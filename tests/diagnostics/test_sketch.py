from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from traceml_core.statistics.sketch import RELATIVE_ERROR, Sketch, merge, sketch_of

numbers = st.one_of(st.just(0.0), st.floats(min_value=1e-9, max_value=1e18))
many = arrays.arrays(np.float64, st.integers(1, 200), elements=numbers)
shares = st.sampled_from([0.0, 0.01, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0])


@given(many, shares)
def test_a_quantile_is_within_one_percent_of_the_exact_one(values, share):
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    assert sketch_of(values).quantile(share) == pytest.approx(exact, rel=RELATIVE_ERROR * 1.0001)


@given(many)
def test_count_total_and_extremes_are_exact(values):
    sketch = sketch_of(values)
    assert (sketch.count, sketch.zeros) == (values.size, int((values == 0).sum()))
    assert (sketch.minimum, sketch.maximum) == (values.min(), values.max())
    assert sketch.mean == pytest.approx(values.mean(), rel=1e-12)


@settings(max_examples=50)
@given(st.lists(many, min_size=1, max_size=4))
def test_merging_sketches_is_sketching_the_union(parts):
    merged, whole = merge(map(sketch_of, parts)), sketch_of(np.concatenate(parts))
    assert (merged.count, merged.zeros, merged.first_bin, merged.bins) == (
        whole.count,
        whole.zeros,
        whole.first_bin,
        whole.bins,
    )
    assert merged.total == pytest.approx(whole.total, rel=1e-12)
    assert merge(reversed([sketch_of(part) for part in parts])).bins == merged.bins


@given(many, shares)
def test_a_sum_up_to_a_limit_leaves_out_what_lies_above_it(values, share):
    sketch = sketch_of(values)
    limit = float(np.quantile(values, share))
    off = RELATIVE_ERROR * values.sum()
    assert sketch.sum_up_to(limit) == pytest.approx(np.minimum(values, limit).sum(), rel=1e-6, abs=off * 1.01 + 1e-9)
    assert sketch.sum_up_to(float(values.max())) == pytest.approx(values.sum())


def test_what_was_not_measured_is_left_out():
    assert sketch_of(np.array([np.nan, 2.0, np.nan])).count == 1


def test_nothing_has_no_quantiles():
    assert np.isnan(Sketch().quantile(0.5))
    assert np.isnan(merge([]).mean)


@pytest.mark.parametrize("bad", [-1.0, np.inf])
def test_a_number_that_cannot_be_counted_is_refused(bad):
    with pytest.raises(ValueError, match="finite numbers from 0 on"):
        sketch_of(np.array([1.0, bad]))


def test_a_share_outside_of_0_to_1_is_refused():
    with pytest.raises(ValueError, match="from 0 to 1"):
        Sketch().quantile(95)
