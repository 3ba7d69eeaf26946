from __future__ import annotations

import time

import msgspec
import numpy as np
import pytest
from factories import START_NS, join, owner_rows, run_of, step_rows, system_rows, tables_of
from hypothesis import given, settings
from hypothesis import strategies as st

from traceml_core.core.phases import Phase
from traceml_core.diagnostics.run_shape import RankShape, RunShape
from traceml_core.diagnostics.step_time.context import build_context
from traceml_core.diagnostics.step_time.policy import LIVE_STEP_TIME_POLICY, SUMMARY_STEP_TIME_POLICY
from traceml_core.diagnostics.step_time.warmup import warmup_count

POLICY = SUMMARY_STEP_TIME_POLICY


def context_of(*parts, run=None, policy=POLICY, **facts):
    steps = join(*parts)
    return build_context(tables_of({"step_time": steps}), run or run_of(steps, **facts), policy)


def seconds_of(context):
    return {part.phase: part.seconds for part in context.budget.parts}


def test_step_time_is_what_lies_in_the_step_and_interval_is_all_of_it():
    context = context_of(step_rows(100, forward_ms=4, backward_ms=4, checkpoint_ms=np.arange(100) % 10))
    assert context.metrics["step_time_ms"].mean == pytest.approx(9.65, rel=1e-6)
    assert context.metrics["step_interval_ms"].mean == pytest.approx(9.65 + 4.5, rel=1e-6)
    assert context.metrics["checkpoint_ms"].mean == pytest.approx(4.5, rel=1e-6)


def test_only_in_step_phases_have_a_share_of_the_step_and_the_shares_add_up():
    metrics = context_of(step_rows(50, callbacks_ms=1.0)).metrics
    shares = {name: stat.share_of_step for name, stat in metrics.items() if stat.share_of_step is not None}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert set(shares) == {f"{phase.key}_ms" for phase in Phase if phase <= Phase.UNATTRIBUTED}


def test_a_phase_that_was_not_measured_has_no_metric_and_a_null_in_the_budget():
    context = context_of(step_rows(50, optimizer_ms=2.0, unmeasured=["optimizer"]), unmeasured=("optimizer",))
    assert "optimizer_ms" not in context.metrics
    assert seconds_of(context)["optimizer"] is None
    assert context.metrics["unattributed_ms"].mean == pytest.approx(2.3)
    assert context.series[0].phases_ms["optimizer"] is None


def test_a_phase_that_cannot_exist_is_zero_and_not_missing():
    assert context_of(step_rows(50)).metrics["grad_sync_ms"].mean == 0.0


def test_the_budget_covers_the_wall_time_with_start_up_and_warmup():
    forward = np.full(100, 4.0)
    forward[:3] = 300.0
    context = context_of(step_rows(100, forward_ms=forward))
    assert context.warmup_steps == 3
    assert context.budget.coverage_share == pytest.approx(1.0)
    assert sum(seconds for seconds in seconds_of(context).values()) == pytest.approx(context.budget.wall_s)
    assert seconds_of(context)["startup"] == pytest.approx(0.8)


def test_coverage_tells_of_time_without_rows():
    steps = step_rows(100)
    covered_ns = int(steps["interval_ns"].sum())
    run = RunShape(ranks=(RankShape(rank=0, wall_ns=covered_ns * 2),))
    assert context_of(steps, run=run).budget.coverage_share == pytest.approx(0.5)


def test_the_budget_is_the_mean_over_ranks():
    context = context_of(step_rows(50, forward_ms=2), step_rows(50, rank=1, forward_ms=6))
    assert seconds_of(context)["forward"] == pytest.approx(0.2)
    assert context.budget.coverage_share == pytest.approx(1.0)


def test_warmup_is_never_averaged_in():
    forward = np.full(200, 4.0)
    forward[[0, 1, 2, 4]] = [900.0, 80.0, 90.0, 70.0]
    context = context_of(step_rows(200, forward_ms=forward))
    assert context.warmup_steps == 5
    assert context.metrics["forward_ms"].max == pytest.approx(4.0)
    assert [block.warmup for block in context.series[:6]] == [True] * 5 + [False]


def test_a_step_that_is_warmup_on_one_rank_is_set_apart_on_all():
    slow = np.full(60, 4.0)
    slow[:2] = 500.0
    context = context_of(step_rows(60, forward_ms=slow), step_rows(60, rank=1))
    assert context.warmup_steps == 2
    assert context.metrics["forward_ms"].count == 2 * 58


def test_a_later_recompile_is_no_warmup():
    forward = np.full(100, 4.0)
    forward[0], forward[18] = 500.0, 500.0
    assert warmup_count(forward * 1e6, POLICY) == 1


@given(st.lists(st.floats(1e3, 1e12), min_size=1, max_size=60))
def test_warmup_leaves_at_least_half_of_the_steps(own_ns):
    assert 0 <= warmup_count(np.array(own_ns), POLICY) <= len(own_ns) // 2


@settings(max_examples=30)
@given(st.integers(20, 300), st.floats(0.0, 0.15), st.integers(0, 2**31))
def test_an_even_run_has_next_to_no_warmup(count, noise, seed):
    own_ns = 1e7 * np.exp(np.random.default_rng(seed).normal(0, noise, count))
    assert warmup_count(own_ns, POLICY) <= 2


def test_a_step_done_twice_counts_as_it_was_done_last_and_the_redone_work_is_counted():
    first = step_rows(60, forward_ms=4.0)
    again = step_rows(60, first_step=41, incarnation=2, forward_ms=8.0, started_ns=START_NS + 10**12)
    context = context_of(first, again)
    assert context.steps == 100
    assert context.redone_steps == 20
    assert context.metrics["forward_ms"].mean == pytest.approx((40 * 4 + 60 * 8) / 100)
    assert context.budget.coverage_share == pytest.approx(1.0)


def test_the_order_in_which_rows_arrived_does_not_matter():
    steps = step_rows(80, forward_ms=np.linspace(3, 5, 80))
    mixed = np.random.default_rng(1).permutation(82)
    shuffled = {name: values[mixed] for name, values in steps.items()}
    assert context_of(shuffled).series == context_of(steps).series


def test_device_time_replaces_host_time_where_it_was_resolved():
    device = {"input_wait": 1.0, "forward": 20.0, "backward": 30.0, "optimizer": 2.0, "unattributed": 0.5}
    context = context_of(step_rows(50, device=device), device="cuda")
    assert context.budget.clock == "device"
    assert context.metrics["forward_ms"].mean == pytest.approx(20.0)
    assert context.metrics["step_time_ms"].mean == pytest.approx(53.5)
    assert context.host_ms["forward"] == pytest.approx(4.0)


def test_a_run_with_some_unresolved_events_says_so():
    device = {"forward": 20.0, "unattributed": 1.0}
    steps = step_rows(50, device=device)
    for phase in Phase:
        if phase <= Phase.UNATTRIBUTED:
            steps[f"device_{phase.key}_ns"][20:] = np.nan
    assert context_of(steps, device="cuda").budget.clock == "mixed"
    assert context_of(step_rows(50)).budget.clock == "host"


def test_throughput_is_added_over_ranks_and_leaves_out_the_last_interval():
    closing = np.zeros(100)
    closing[-1] = 5_000.0
    ranks = [step_rows(100, rank=rank, samples=8, tokens=512, checkpoint_ms=closing) for rank in (0, 1)]
    context = context_of(*ranks)
    assert context.samples_per_s == pytest.approx(2 * 8 / 9.85e-3)
    assert context.tokens_per_s == pytest.approx(2 * 512 / 9.85e-3)


def test_throughput_is_null_where_a_rank_was_not_recorded():
    steps = step_rows(50, samples=8, tokens=512)
    context = context_of(steps, run=msgspec.structs.replace(run_of(steps), world_size=2))
    assert (context.samples_per_s, context.tokens_per_s) == (None, None)


def test_throughput_is_null_where_batches_do_not_show_it():
    assert context_of(step_rows(50, samples=None)).samples_per_s is None


def test_the_series_has_at_most_so_many_equal_blocks_and_loses_no_step():
    context = context_of(step_rows(2_345))
    assert len(context.series) <= POLICY.series_blocks
    assert sum(block.count for block in context.series) == 2_345
    assert len({block.count for block in context.series[:-1]}) == 1
    assert [block.first_step for block in context.series[:3]] == [1, 4, 7]
    assert len(context_of(step_rows(2_345), policy=LIVE_STEP_TIME_POLICY).series) <= 200


def test_the_series_shows_the_slowest_rank_and_the_mean_of_phases():
    block = context_of(step_rows(10, forward_ms=4), step_rows(10, rank=1, forward_ms=8)).series[5]
    assert block.step_interval_ms == pytest.approx(13.85)
    assert block.phases_ms["forward"] == pytest.approx(6.0)


def test_ranks_have_their_own_means_and_the_worst_is_named():
    context = context_of(step_rows(50, forward_ms=4), step_rows(50, rank=1, forward_ms=8))
    assert [rank.metrics["forward_ms"] for rank in context.ranks] == [pytest.approx(4), pytest.approx(8)]
    stat = context.metrics["forward_ms"]
    assert (stat.worst_rank, stat.worst_rank_mean) == (1, pytest.approx(8))


def test_what_one_rank_spends_around_steps_is_not_thinned_by_the_others():
    saves = np.where(np.arange(50) % 5 == 4, 100.0, 0.0)
    context = context_of(step_rows(50, checkpoint_ms=saves), step_rows(50, rank=1))
    assert context.habitual_s["checkpoint"] == pytest.approx(1.0)


def test_owners_are_summed_over_rows_and_ranks_apart():
    rows = join(
        owner_rows(("callbacks", "A", 10, 2, 10), ("callbacks", "B", 30, 3, 10)),
        owner_rows(("callbacks", "A", 50, 9, 10)),
        owner_rows(("callbacks", "A", 20, 2, 10), rank=1),
    )
    steps = step_rows(50)
    context = build_context(
        tables_of({"step_time": steps, "owner_time": rows, "system": system_rows()}), run_of(steps), POLICY
    )
    (a, b) = context.owners_of(Phase.CALLBACKS)
    assert (a.owner, a.spent_s, a.longest_s, a.steps) == ("A", pytest.approx(0.06), pytest.approx(0.009), 20)
    assert a.habitual_s == pytest.approx(0.051)
    assert b.owner == "B"
    assert context.cpus == 8.0


def test_rows_around_steps_alone_have_no_steps_to_judge():
    steps = {name: values[:1] for name, values in step_rows(10).items()}
    assert build_context(tables_of({"step_time": steps}), run_of(steps), POLICY) is None


def test_a_hundred_thousand_rank_steps_are_reduced_in_under_half_a_second():
    random = np.random.default_rng(0)
    phases = {f"{phase.key}_ms": 1 for phase in Phase if phase not in (Phase.STARTUP, Phase.TEARDOWN)}
    ranks = [step_rows(12_500, rank=rank, **{name: random.gamma(5, 1, 12_500) for name in phases}) for rank in range(8)]
    steps = join(*ranks)
    run = run_of(steps)
    spent = []
    for _ in range(3):
        began = time.thread_time()
        build_context(tables_of({"step_time": steps}), run, POLICY)
        spent.append(time.thread_time() - began)
    assert min(spent) < 0.5


def unmeasured_once_it_steps(phase, *parts):
    """The rows, as a loop leaves them that shows only with its first step that a phase cannot be measured."""
    steps = {name: values.copy() for name, values in join(*parts).items()}
    column = f"{phase}_ns"
    is_step = ~np.isnan(steps["step"])
    steps["unattributed_ns"][is_step] += steps[column][is_step]
    steps[column] = np.where(is_step, np.nan, 0.0)
    return steps


@pytest.mark.parametrize("phase", ["backward", "optimizer", "input_wait"])
def test_a_phase_that_only_the_start_up_record_has_was_not_measured(phase):
    context = context_of(unmeasured_once_it_steps(phase, step_rows(50)), unmeasured=(phase,))
    assert phase not in context.habitual_s
    assert context.share_of_training(Phase[phase.upper()]) is None
    assert f"{phase}_ms" not in context.metrics
    assert seconds_of(context)[phase] is None


def test_a_rank_that_never_stepped_does_not_hide_what_the_others_have_in_common():
    slow, idle = step_rows(50, input_wait_ms=30.0), step_rows(0, rank=1)
    alone = context_of(slow)
    context = context_of(slow, idle)
    assert context.share_of_training(Phase.INPUT_WAIT) == pytest.approx(alone.share_of_training(Phase.INPUT_WAIT))
    assert context.training_s == pytest.approx(alone.training_s)
