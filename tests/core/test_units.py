"""Numbers read the way people read them, and a missing one is never shown as zero."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceml_core.core.units import (
    MISSING,
    byte_size,
    count,
    milliseconds,
    percent,
    percent_change,
    percent_exact,
    percent_range,
    rank_ranges,
    rate,
    seconds,
)

EVERY_UNIT = (percent, milliseconds, seconds, byte_size, rate, count)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (0.004, "<1%"), (0.43, "43%"), (0.996, ">99%"), (1, "100%"), (1.2, "120%")],
)
def test_a_share_is_a_whole_percentage_that_never_rounds_to_nothing_or_all(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 ms"), (0.052, "52 µs"), (9.81, "9.81 ms"), (24.14, "24.1 ms"), (123.4, "123 ms"), (2400, "2.40 s")],
)
def test_milliseconds_have_three_digits_and_the_unit_that_reads_best(value, text):
    assert milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.08, "80.0 ms"),
        (2.4, "2.40 s"),
        (48.1, "48.1 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (86400 * 2 + 3 * 3600, "2 d 03 h"),
    ],
)
def test_a_length_of_time_is_told_in_at_most_two_units(value, text):
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(512, "512 B"), (40 * 2**20, "40.0 MiB"), (1.2 * 2**30, "1.20 GiB"), (2000 * 2**30, "1.95 TiB")],
)
def test_bytes_are_told_in_binary_units(value, text):
    assert byte_size(value) == text


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ([], "no rank"),
        ([3], "rank 3"),
        ([7, 0, 2, 1, 3], "ranks 0-3, 7"),
        (list(range(1_024)), "ranks 0-1023"),
        (list(range(0, 1_024, 2)), "ranks 0, 2, 4, 6, 8, 10 and 506 more"),
    ],
)
def test_ranks_are_told_in_a_few_words_however_many_they_are(ranks, text):
    assert rank_ranges(ranks) == text


def test_rates_and_counts_have_their_thousands_apart():
    assert (rate(0.42), rate(31.84), rate(1240.4)) == ("0.42", "31.8", "1,240")
    assert count(12345) == "12,345"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.143, "+14%"), (-0.0234, "-2.3%"), (0.0999, "+10%"), (-0.0001, "0.0%"), (12.5, "+1,250%"), (None, MISSING)],
)
def test_a_change_has_its_sign_and_a_decimal_where_it_is_small(share, text):
    assert percent_change(share) == text


def test_a_range_of_changes_has_one_unit_and_a_chosen_share_is_as_it_was_chosen():
    assert percent_range(-0.004, 0.172) == "-0.4 to 17%"
    assert (percent_exact(0.05), percent_exact(0.025), percent_exact(0.005)) == ("5%", "2.5%", "0.5%")


@pytest.mark.parametrize("unit", EVERY_UNIT)
@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_was_not_measured_is_a_dash_in_every_unit(unit, value):
    assert unit(value) == MISSING


@pytest.mark.parametrize("unit", EVERY_UNIT)
@given(value=st.floats(min_value=0, max_value=1e18))
def test_no_number_is_told_in_more_than_a_few_letters_or_with_an_exponent(unit, value):
    text = unit(value)
    assert "e+" not in text
    assert len(text) <= 26
