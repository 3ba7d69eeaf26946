"""Steps joined across ranks: whose lag, in what, spread how over time; exact under merging."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traceml_core.core.phases import Phase
from traceml_core.statistics.others import middle_of
from traceml_core.statistics.rank_join import (
    BLOCKS,
    OWN_WORK,
    RankJoin,
    join_rows,
    join_steps,
    merge_joins,
    pack_join,
    unpack_join,
)

MS = 1e6


def times(steps: int, ranks: int, **phases_ms) -> np.ndarray:
    """Nanoseconds (phase, step, rank); each phase is a number, or what broadcasts to (step, rank)."""
    spent = np.zeros((len(Phase), steps, ranks))
    for name, values in {"forward_ms": 4.0, "backward_ms": 4.0, **phases_ms}.items():
        spent[Phase[name.removesuffix("_ms").upper()]] = np.asarray(values) * MS
    return spent


def joined(spent: np.ndarray, first_step: int = 1) -> RankJoin:
    steps, ranks = spent.shape[1:]
    return join_steps(np.arange(first_step, first_step + steps), np.arange(ranks), spent)


def only(rank: int, milliseconds: float, ranks: int = 4) -> np.ndarray:
    values = np.zeros(ranks)
    values[rank] = milliseconds
    return values


def assert_same(one: RankJoin, other: RankJoin) -> None:
    for name in RankJoin.__struct_fields__:
        mine, theirs = getattr(one, name), getattr(other, name)
        if name == "lag":
            assert (mine.count, mine.bins, mine.zeros) == (theirs.count, theirs.bins, theirs.zeros)
            mine, theirs = mine.total, theirs.total
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-3, err_msg=name)


@given(st.lists(st.integers(0, 6), min_size=2, max_size=9))
def test_a_rank_is_held_against_the_median_of_the_others(values):
    row = np.array([values], float)
    expected = [statistics.median(values[:place] + values[place + 1 :]) for place in range(len(values))]
    assert middle_of(row).of_others(row)[0].tolist() == expected


@pytest.mark.parametrize(
    "phase", ["input_wait", "h2d", "forward", "backward", "optimizer", "callbacks", "unattributed"]
)
def test_the_lag_is_the_slowest_ranks_and_lies_in_its_phase(phase):
    join = joined(times(50, 4, **{f"{phase}_ms": 1.0 + only(2, 40.0)}))
    assert join.lag.total == pytest.approx(50 * 40 * MS)
    assert join.blame_ns[Phase[phase.upper()], 2] == pytest.approx(50 * 40 * MS)
    assert join.blame_ns.sum() == pytest.approx(50 * 40 * MS)
    assert join.slowest_steps[OWN_WORK].tolist() == [0, 0, 50, 0]
    assert join.excess_ns[2] == pytest.approx(50 * 40 * MS)


def test_of_two_ranks_the_slower_costs_the_whole_difference():
    assert joined(times(10, 2, forward_ms=[4.0, 44.0])).lag.total == pytest.approx(10 * 40 * MS)


@pytest.mark.parametrize("waits_in", ["h2d", "forward", "unattributed"])
def test_who_waits_for_a_rank_in_a_later_phase_is_not_blamed(waits_in):
    shadow = 40.0 - only(0, 40.0)
    join = joined(times(20, 4, input_wait_ms=1.0 + only(0, 40.0), **{f"{waits_in}_ms": 0.5 + shadow}))
    assert join.lag.total == pytest.approx(20 * 40 * MS)
    assert join.blame_ns[Phase.INPUT_WAIT, 0] == pytest.approx(20 * 40 * MS)


def test_the_wait_for_gradients_is_nobodys_work_and_its_floor_is_what_all_wait():
    join = joined(times(20, 4, grad_sync_ms=43.0 - only(3, 40.0), backward_ms=4.0 + only(3, 40.0)))
    assert join.blame_ns[Phase.BACKWARD, 3] == pytest.approx(20 * 40 * MS)
    assert join.blame_ns[Phase.GRAD_SYNC].sum() == 0
    assert join.sync_floor_ns == pytest.approx(20 * 3 * MS)


def test_without_the_wait_for_gradients_only_input_and_copy_are_compared():
    spent = times(20, 4, forward_ms=4.0 + only(1, 40.0), input_wait_ms=1.0 + only(2, 10.0))
    spent[Phase.GRAD_SYNC, :, 3] = np.nan
    join = joined(spent)
    assert join.unsplit_steps == 20
    assert join.lag.total == pytest.approx(20 * 10 * MS)
    assert join.blame_ns[Phase.INPUT_WAIT, 2] == pytest.approx(20 * 10 * MS)
    assert join.slowest_steps[OWN_WORK].sum() == 0


def test_a_phase_that_one_rank_did_not_measure_is_compared_as_unattributed():
    spent = times(20, 3, optimizer_ms=30.0)
    spent[Phase.UNATTRIBUTED, :, 1], spent[Phase.OPTIMIZER, :, 1] = 30 * MS, np.nan
    assert joined(spent).lag.total == 0


def test_steps_that_a_rank_lacks_are_counted_and_not_joined():
    rank = np.array([0, 1, 0, 1, 0, 1, 0])
    step = np.array([1.0, 1, 2, 2, 3, 3, 4])
    join = join_rows(rank, step, np.ones((len(Phase), 7)))
    assert (join.joined_steps, join.incomplete_steps) == (3, 1)


def test_rows_are_joined_by_step_in_whatever_order_they_come():
    random = np.random.default_rng(1)
    spent = random.exponential(MS, (len(Phase), 40, 3))
    rank, step = np.tile(np.arange(3), 40), np.repeat(np.arange(1, 41), 3)
    mixed = random.permutation(120)
    rows = spent.reshape(len(Phase), 120)[:, mixed]
    assert_same(join_rows(rank[mixed], step[mixed], rows), joined(spent))


def test_one_rank_alone_joins_nothing():
    join = join_rows(np.zeros(5, int), np.arange(5), np.ones((len(Phase), 5)))
    assert (join.joined_steps, join.ranks.tolist()) == (0, [0])


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 299), max_size=5, unique=True),
    first_step=st.integers(0, 5_000),
    ranks=st.integers(2, 5),
    seed=st.integers(0, 1_000),
)
def test_the_merge_of_parts_is_the_join_of_the_whole(cuts, first_step, ranks, seed):
    random = np.random.default_rng(seed)
    spent = random.exponential(MS, (len(Phase), 300, ranks))
    spent[Phase.GRAD_SYNC, random.random(300) < 0.1, 0] = np.nan
    edges = [0, *sorted(cuts), 300]
    parts = [joined(spent[:, begin:end], first_step + begin) for begin, end in zip(edges, edges[1:], strict=False)]
    merged = merge_joins(parts)
    whole = joined(spent, first_step)
    assert_same(merged, whole)
    assert_same(unpack_join(pack_join(merged)), whole)


def test_blocks_spread_lags_over_time_within_a_bounded_number():
    values = np.zeros((5_000, 4))
    values[2_000:2_100, 1] = 40.0
    join = joined(times(5_000, 4, forward_ms=4.0 + values), first_step=123_456)
    assert join.block_lag_ns.shape[0] <= BLOCKS
    assert join.block_count.sum() == 5_000
    assert (join.block_lag_ns[:, 1] > 0).sum() <= 2


def test_ranks_that_join_later_are_in_the_merge():
    merged = merge_joins([joined(times(10, 2, forward_ms=[4.0, 9.0])), joined(times(10, 4), first_step=11)])
    assert merged.ranks.tolist() == [0, 1, 2, 3]
    assert merged.lead_ns[Phase.FORWARD].tolist() == [0, 50 * MS, 0, 0]


def test_a_join_of_a_thousand_ranks_is_small_and_quick():
    random = np.random.default_rng(0)
    spent = random.exponential(MS, (len(Phase), 100, 1_024))
    began = time.process_time()
    join = joined(spent)
    assert time.process_time() - began < 2.0
    assert len(pack_join(merge_joins([join] * 2))) < 1_000_000
