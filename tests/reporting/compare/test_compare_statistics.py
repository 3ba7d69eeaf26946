"""The statistics of a comparison, against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest

from traceml_core.statistics.block_bootstrap import mean_draws
from traceml_core.statistics.calm_half import in_calm_half, pseudo_values, smoothed
from traceml_core.statistics.two_sides import RunMean, runs_for, sides_apart, t_quantile


def test_the_bootstrap_of_independent_values_gives_the_standard_error():
    values = np.random.default_rng(1).normal(10, 1, 900)

    assert mean_draws(values, np.ones(900)).std() == pytest.approx(1 / 30, rel=0.2)


def test_the_bootstrap_of_values_that_last_gives_more_than_single_values_would():
    noise = np.random.default_rng(1).normal(0, 1, 1000)
    lasting = np.convolve(noise, np.ones(20), "valid")

    assert mean_draws(lasting, np.ones(lasting.size)).std() > 2 * lasting.std() / np.sqrt(lasting.size)


def test_blocks_count_by_their_steps():
    values, counts = np.array([1.0] * 9 + [11.0]), np.array([10.0] * 9 + [1.0])

    assert mean_draws(values, counts).mean() < 1.5


def test_a_mean_of_the_calm_half_does_not_see_stalls_and_scatters_as_repeated_means_of_it_do():
    random = np.random.default_rng(2)

    def calm_mean(values):
        return pseudo_values(values, in_calm_half(values), np.ones(values.size)).mean()

    quiet = random.normal(10, 1, (400, 400))
    stalled = np.where(random.random(400) < 0.1, 500, quiet[0])
    repeated = np.array([calm_mean(values) for values in quiet])
    told = pseudo_values(quiet[0], in_calm_half(quiet[0]), np.ones(400)).std() / np.sqrt(400)

    assert repeated.mean() == pytest.approx(10 - np.sqrt(2 / np.pi), abs=0.02)
    assert calm_mean(stalled) == pytest.approx(calm_mean(quiet[0]), abs=0.2)
    assert told == pytest.approx(repeated.std(), rel=0.15)


def test_bursts_are_spread_over_their_neighbours_and_their_mean_stays():
    bursts = np.where(np.arange(400) % 4 == 0, 8.0, 0.0)

    assert smoothed(bursts)[20:-20] == pytest.approx(2.0)
    assert smoothed(np.full(50, 3.0)) == pytest.approx(3.0)


def test_welch_agrees_with_the_textbook():
    a = [RunMean(value, 0.0) for value in (10.0, 11.0, 12.0)]
    b = [RunMean(value, 0.0) for value in (13.0, 14.0, 15.0, 16.0)]
    apart = sides_apart(a, b, 0.0, 1.0)

    # scipy.stats.ttest_ind(b, a, equal_var=False).confidence_interval(): 1.3078, 5.6922 around 3.5 with df 4.96
    assert apart.estimate == pytest.approx(3.5)
    assert apart.half_width == pytest.approx(2.24, abs=0.05)
    assert apart.spread_measured


def test_a_few_runs_that_happen_to_agree_are_not_trusted_to():
    alike = [RunMean(10.0, 0.0)] * 3
    apart = sides_apart(alike, alike, 0.01, 4.0)

    # 2 + 4 degrees of freedom a side, of which the 4 say 0.01
    assert apart.half_width == pytest.approx(2.179 * np.sqrt(4 / 6) * 0.01 * np.sqrt(2 / 3))


def test_runs_that_spread_far_more_widely_than_usual_are_judged_by_their_own_spread():
    a = [RunMean(value, 0.0) for value in (10.0, 11.0, 12.0)]
    b = [RunMean(value, 0.0) for value in (13.0, 14.0, 15.0, 16.0)]

    assert sides_apart(a, b, 0.01, 4.0).half_width == pytest.approx(sides_apart(a, b, 0.0, 1.0).half_width, rel=0.001)


def test_one_run_a_side_reckons_with_a_quarter_more_than_the_floor_and_its_own_scatter_several_times():
    quiet = sides_apart([RunMean(0.0, 0.0)], [RunMean(0.0, 0.0)], 0.01, 3.0)
    disturbed = sides_apart([RunMean(0.0, 0.01)], [RunMean(0.0, 0.0)], 0.0, 3.0)

    assert quiet.half_width == pytest.approx(1.96 * 1.25 * 0.01 * np.sqrt(2))
    assert disturbed.half_width == pytest.approx(1.96 * 1.25 * 0.03)


def test_what_no_run_shows_is_reckoned_with_where_no_side_has_several():
    one, two = [RunMean(0.0, 0.0)], [RunMean(0.0, 0.0)] * 2

    assert sides_apart(one, one, 0.03, 1.0, 0.04).half_width == pytest.approx(1.96 * 1.25 * 0.05 * np.sqrt(2))
    assert sides_apart(two, one, 0.03, 1.0, 0.04) == sides_apart(two, one, 0.03, 1.0)


def test_a_single_run_borrows_the_spread_of_the_other_side():
    apart = sides_apart([RunMean(value, 0.0) for value in (9.0, 10.0, 11.0)], [RunMean(10.0, 0.0)], 0.0, 1.0)

    assert apart.spread_measured
    assert apart.half_width == pytest.approx(4.303 * np.sqrt(1 / 3 + 1))


def test_a_disturbed_run_says_less_than_the_others_of_its_side():
    calm = [RunMean(value, 0.001) for value in (9.99, 10.0, 10.01, 10.0)]
    disturbed = [*calm, RunMean(12.0, 0.5)]
    apart = sides_apart(disturbed, calm, 0.01, 4.0)

    assert apart.first == pytest.approx(10.0, abs=0.01)
    assert apart.half_width < 0.1


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (4, 2.776), (5.5, 2.503), (9, 2.262), (100, 1.984)])
def test_the_quantile_of_t_is_that_of_the_tables(freedom, quantile):
    assert t_quantile(freedom) == pytest.approx(quantile, rel=0.004)


def test_how_many_runs_it_takes_falls_with_the_width_and_has_an_end():
    assert runs_for(1.0, 0.1, 50) == 2
    assert 2 < runs_for(0.05, 0.05, 50) < runs_for(0.02, 0.05, 50)
    assert runs_for(0.001, 0.05, 50) is None
