"""Ranks that wait for one of them: whose lag, in what, chronic, rotating or one-off; or for the network alike."""

from __future__ import annotations

import numpy as np
import pytest
from factories import join, run_of, step_rows, tables_of

from traceml_core.diagnostics.run_shape import RankShape
from traceml_core.diagnostics.step_time.api import diagnose
from traceml_core.diagnostics.step_time.context import build_context
from traceml_core.diagnostics.step_time.policy import SUMMARY_STEP_TIME_POLICY as POLICY
from traceml_core.diagnostics.step_time.step_table import step_table
from traceml_core.history.joined_steps import JoinedSteps
from traceml_core.statistics.rank_join import join_rows, merge_joins

STEPS = 100
STRAGGLERS = {
    "input_wait": "INPUT_STRAGGLER",
    "h2d": "H2D_STRAGGLER",
    "forward": "COMPUTE_STRAGGLER",
    "backward": "COMPUTE_STRAGGLER",
    "optimizer": "STRAGGLER",
    "unattributed": "STRAGGLER",
}
HEALTHY_MS = {"input_wait": 0.3, "h2d": 0.05, "forward": 4.0, "backward": 4.2, "optimizer": 1.0, "unattributed": 0.3}


def ranks_of(count=2, steps=STEPS, late=None, sync_ms=1.0, noise_ms=0.0, unmeasured=(), seed=0, **phases_ms):
    """Rows of ranks that wait for each other in grad_sync. `late` is {(rank, phase): milliseconds, one a step or all};
    `phases_ms` are those of all ranks."""
    random = np.random.default_rng(seed)
    all_ms = {**HEALTHY_MS, **{name.removesuffix("_ms"): value for name, value in phases_ms.items()}}
    own = {
        (rank, phase): all_ms.get(phase, 0.0)
        + np.broadcast_to((late or {}).get((rank, phase), 0.0), (steps,))
        + random.exponential(noise_ms, steps) * (all_ms.get(phase, 0.0) > 0)
        for rank in range(count)
        for phase in {*all_ms, *(phase for _, phase in late or {})}
    }
    work = [sum(values for (owner, _), values in own.items() if owner == rank) for rank in range(count)]
    slowest = np.max(work, axis=0)
    rows = []
    for rank in range(count):
        mine = {f"{phase}_ms": values for (owner, phase), values in own.items() if owner == rank}
        mine["grad_sync_ms"] = slowest - work[rank] + sync_ms
        rows.append(step_rows(steps, rank=rank, unmeasured=unmeasured, **mine))
    return rows


def context(rows, world_size=None, unmeasured=(), **facts):
    steps = join(*rows)
    run = run_of(steps, unmeasured=unmeasured, **facts)
    if world_size is not None:
        run = type(run)(ranks=run.ranks, world_size=world_size, facts=run.facts)
    return build_context(tables_of({"step_time": steps}), run, POLICY)


def judge(rows, **more):
    return diagnose(context(rows, **more), POLICY)


def kinds(diagnosis):
    return [issue.kind for issue in diagnosis.issues]


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize(("phase", "kind"), STRAGGLERS.items())
def test_the_rank_that_others_wait_for_is_named_with_its_cause(phase, kind, late, count):
    diagnosis = judge(ranks_of(count, late={(late, phase): 40.0}))
    primary = diagnosis.primary
    assert (primary.kind, primary.ranks, primary.evidence["phase"]) == (kind, (late,), phase)
    assert (primary.evidence["pattern"], primary.severity) == ("chronic", "critical")
    assert primary.impact_share == pytest.approx(40 / 50.85, rel=0.03)
    assert primary.evidence["rank_hours"] == pytest.approx(40e-3 * STEPS * count / 3600, rel=0.03)
    assert f"ank {late} lags" in primary.summary
    assert set(kinds(diagnosis)) <= {kind, "COMPUTE_BOUND"}


def test_a_straggler_among_noise_is_named_all_the_same():
    primary = judge(ranks_of(4, late={(2, "forward"): 12.0}, noise_ms=2.0)).primary
    assert (primary.kind, primary.ranks, primary.evidence["pattern"]) == ("COMPUTE_STRAGGLER", (2,), "chronic")


def test_a_lag_that_is_worth_a_warning_on_a_device_may_be_chance_on_a_hosts_cores():
    rows = ranks_of(4, late={(2, "forward"): 2.0})
    assert kinds(judge(rows, device="cuda"))[0] == "COMPUTE_STRAGGLER"
    assert kinds(judge(rows)) == ["COMPUTE_BOUND"]


def test_a_straggler_of_every_other_step_is_chronic():
    waits = np.where(np.arange(STEPS) % 2, 60.0, 0.0)
    primary = judge(ranks_of(4, late={(3, "input_wait"): waits})).primary
    assert (primary.kind, primary.ranks, primary.evidence["pattern"]) == ("INPUT_STRAGGLER", (3,), "chronic")


def test_a_whole_node_that_lags_is_chronic_and_told_as_a_range():
    primary = judge(ranks_of(32, late={(rank, "h2d"): 20.0 for rank in range(8, 16)}, noise_ms=0.2)).primary
    assert (primary.kind, sorted(primary.ranks)) == ("H2D_STRAGGLER", list(range(8, 16)))
    assert primary.evidence["pattern"] == "chronic"
    assert "ranks 8-15" in primary.summary.lower()


def test_a_lag_that_another_rank_has_at_each_step_is_rotating():
    turns = {(rank, "forward"): np.where(np.arange(STEPS) % 4 == rank, 40.0, 0.0) for rank in range(4)}
    primary = judge(ranks_of(4, late=turns, noise_ms=0.3)).primary
    assert (primary.kind, sorted(primary.ranks)) == ("COMPUTE_STRAGGLER", [0, 1, 2, 3])
    assert primary.evidence["pattern"] == "rotating"
    assert primary.impact_share == pytest.approx(40 / 52, rel=0.1)


@pytest.mark.parametrize("count", [2, 3])
def test_two_or_three_ranks_in_turn_are_rotating(count):
    turns = {(rank, "backward"): np.where(np.arange(STEPS) % count == rank, 40.0, 0.0) for rank in range(count)}
    assert judge(ranks_of(count, late=turns)).primary.evidence["pattern"] == "rotating"


def test_a_lag_for_a_short_while_is_one_off_and_no_more_than_information():
    waits = np.zeros(STEPS)
    waits[40:44] = 800.0
    (issue,) = [one for one in judge(ranks_of(4, late={(1, "forward"): waits})).issues if one.kind != "COMPUTE_BOUND"]
    assert (issue.kind, issue.ranks, issue.severity) == ("COMPUTE_STRAGGLER", (1,), "info")
    assert issue.evidence["pattern"] == "one-off"
    assert "short while" in issue.summary


def test_one_long_stall_does_not_hide_a_chronic_lag():
    waits = np.full(STEPS, 20.0)
    waits[50] = 5_000.0
    primary = judge(ranks_of(4, late={(1, "forward"): waits}), device="cuda").primary
    assert (primary.kind, primary.ranks, primary.evidence["pattern"]) == ("COMPUTE_STRAGGLER", (1,), "chronic")
    assert primary.evidence["lag_ms"] == pytest.approx(20, rel=0.1)


def test_a_single_hiccup_is_nobodys_fault():
    waits = np.zeros(STEPS)
    waits[60] = 250.0
    assert kinds(judge(ranks_of(4, late={(1, "input_wait"): waits}))) == ["COMPUTE_BOUND"]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("count", [2, 4, 16])
def test_equal_ranks_have_no_straggler(count, seed):
    assert kinds(judge(ranks_of(count, noise_ms=0.3, seed=seed))) == ["COMPUTE_BOUND"]


def test_a_wait_for_data_on_every_rank_is_input_bound_and_not_a_straggler():
    diagnosis = judge(ranks_of(4, input_wait_ms=30.0, noise_ms=0.5))
    assert kinds(diagnosis)[0] == "INPUT_BOUND"
    assert not [kind for kind in kinds(diagnosis) if "STRAGGLER" in kind]


def test_bursts_of_waiting_that_fall_on_other_steps_of_each_rank_are_input_bound():
    bursts = {(rank, "input_wait"): np.where((np.arange(STEPS) + rank) % 2, 60.0, 0.0) for rank in range(2)}
    diagnosis = judge(ranks_of(2, late=bursts))
    assert kinds(diagnosis)[0] == "INPUT_BOUND"
    assert "INPUT_STRAGGLER" not in kinds(diagnosis)


def test_what_all_wait_and_what_one_waits_longer_are_two_findings():
    diagnosis = judge(ranks_of(4, input_wait_ms=30.0, late={(2, "input_wait"): 12.0}), device="cuda")
    assert kinds(diagnosis)[:2] == ["INPUT_BOUND", "INPUT_STRAGGLER"]
    assert diagnosis.issues[0].impact_share == pytest.approx(30 / 52.55, rel=0.05)
    assert diagnosis.issues[1].impact_share == pytest.approx(12 / 52.55, rel=0.05)


def test_a_straggler_loses_to_a_worse_wait_of_all_ranks():
    assert kinds(judge(ranks_of(2, input_wait_ms=60.0, late={(1, "forward"): 12.0})))[0] == "INPUT_BOUND"


def test_who_waits_for_the_laggard_while_a_batch_is_copied_is_not_h2d_bound():
    rows = ranks_of(4, late={(0, "input_wait"): 40.0, **{(rank, "h2d"): 40.0 for rank in (1, 2, 3)}})
    diagnosis = judge(rows)
    assert (diagnosis.primary.kind, diagnosis.primary.ranks) == ("INPUT_STRAGGLER", (0,))
    assert "H2D_BOUND" not in kinds(diagnosis)


def test_a_rank_whose_callbacks_are_heavy_is_left_to_the_rule_that_names_them():
    diagnosis = judge(ranks_of(4, late={(0, "callbacks"): 40.0}))
    assert diagnosis.primary.kind == "CALLBACK_HEAVY"
    assert "STRAGGLER" not in kinds(diagnosis)


def test_ranks_that_do_not_wait_for_each_other_have_no_straggler():
    rows = [step_rows(STEPS, rank=0), step_rows(STEPS, rank=1, forward_ms=44.0)]
    assert not [kind for kind in kinds(judge(rows)) if "STRAGGLER" in kind]


def test_ranks_that_all_wait_alike_are_communication_bound():
    diagnosis = judge(ranks_of(4, sync_ms=12.0, noise_ms=0.2))
    assert kinds(diagnosis)[0] == "COMMUNICATION_BOUND"
    assert diagnosis.primary.evidence["grad_sync_floor_ms"] == pytest.approx(12, rel=0.05)


def test_waits_for_a_straggler_are_not_communication():
    assert "COMMUNICATION_BOUND" not in kinds(judge(ranks_of(4, late={(1, "backward"): 40.0})))


def test_communication_loses_to_a_worse_straggler():
    diagnosis = judge(ranks_of(4, sync_ms=12.0, late={(1, "backward"): 30.0}), device="cuda")
    assert kinds(diagnosis)[:2] == ["COMPUTE_STRAGGLER", "COMMUNICATION_BOUND"]


UNSPLIT = {"unmeasured": ("grad_sync",)}
EVEN_MS = {"forward": 0.5, "backward": 0.5, "optimizer": 0.1, "input_wait": 0.6, "h2d": 0.36, "unattributed": 0.48}


def test_without_the_wait_for_gradients_the_rules_that_need_it_abstain_and_say_so():
    even_ms = {f"{phase}_ms": value for phase, value in EVEN_MS.items()}
    diagnosis = judge(ranks_of(2, sync_ms=0.0, **even_ms, **UNSPLIT), **UNSPLIT)
    assert diagnosis.primary.kind == "INCOMPLETE_DATA"
    assert diagnosis.primary.evidence["missing"] == ["the wait for gradients"]


def test_without_the_wait_for_gradients_a_late_batch_is_found_and_a_late_forward_is_not():
    primary = judge(ranks_of(2, late={(1, "input_wait"): 40.0}, **UNSPLIT), **UNSPLIT).primary
    assert (primary.kind, primary.ranks, primary.evidence["grad_sync_measured"]) == ("INPUT_STRAGGLER", (1,), False)
    found = judge(ranks_of(2, late={(1, "forward"): 40.0}, **UNSPLIT), **UNSPLIT)
    assert "COMPUTE_STRAGGLER" not in kinds(found)


def test_a_loop_that_does_not_mark_the_wait_for_gradients_abstains_too():
    even_ms = {f"{phase}_ms": value for phase, value in EVEN_MS.items()}
    diagnosis = judge(ranks_of(2, sync_ms=0.0, **even_ms))
    assert diagnosis.primary.evidence["missing"] == ["the wait for gradients"]


def test_one_measured_rank_of_two_abstains():
    diagnosis = judge([step_rows(STEPS, forward_ms=1, backward_ms=1, optimizer_ms=0.5, grad_sync_ms=9)], world_size=2)
    assert diagnosis.primary.kind == "INCOMPLETE_DATA"
    assert diagnosis.primary.evidence["missing"] == ["the work of the other ranks"]


def test_where_most_steps_lack_a_rank_nothing_is_said_of_communication():
    rows = ranks_of(2, sync_ms=20.0, forward_ms=1.0, backward_ms=1.0)
    rows[0] = {name: values[:30] for name, values in rows[0].items()}
    diagnosis = judge(rows)
    assert diagnosis.primary.kind == "INCOMPLETE_DATA"
    assert diagnosis.primary.evidence["missing"] == ["the work of the other ranks"]


def test_some_measured_ranks_show_a_straggler_among_them_but_no_communication():
    rows = ranks_of(3, late={(1, "forward"): 40.0})
    primary = judge(rows, world_size=4).primary
    assert (primary.kind, primary.evidence["ranks_joined"], primary.evidence["world_size"]) == (
        "COMPUTE_STRAGGLER",
        3,
        4,
    )
    assert "COMMUNICATION_BOUND" not in kinds(judge(ranks_of(3, sync_ms=20.0), world_size=4))


def test_rows_that_a_rank_lost_are_counted_and_the_rest_is_judged():
    rows = ranks_of(2, late={(1, "forward"): 40.0})
    kept = np.ones(STEPS + 2, bool)
    kept[30:60] = False
    rows[0] = {name: values[kept] for name, values in rows[0].items()}
    primary = judge(rows).primary
    assert (primary.kind, primary.evidence["joined_steps"], primary.evidence["incomplete_steps"]) == (
        "COMPUTE_STRAGGLER",
        70,
        30,
    )


def joined_by_those_that_go_on(rows, silent_after):
    """What the history joined of these rows beyond step 20, where the last rank did so many steps."""
    table = step_table(tables_of({"step_time": join(*rows)})["step_time"], POLICY)

    def joined(first, last, ranks):
        places = np.flatnonzero((table.first >= first) & (table.first <= last) & np.isin(table.rank, ranks))
        return join_rows(table.rank[places], table.first[places], table.phase_ns[:, places])

    every = np.arange(len(rows))
    return JoinedSteps(20, merge_joins([joined(21, silent_after, every), joined(silent_after + 1, np.inf, every[:-1])]))


def test_a_straggler_is_found_after_another_rank_fell_silent():
    rows = ranks_of(3, 400, {(1, "forward"): 20.0})
    rows[2] = {name: values[:81] for name, values in rows[2].items()}
    steps = join(*rows)
    tables, run = tables_of({"step_time": steps}), run_of(steps)
    found = build_context(tables, run, POLICY, joined_by_those_that_go_on(rows, 80))
    assert (found.apart.joined_steps, found.apart.ranks_joined) == (400, 2)
    primary = diagnose(found, POLICY).primary
    assert (primary.kind, primary.ranks) == ("COMPUTE_STRAGGLER", (1,))
    assert primary.evidence["lag_ms"] == pytest.approx(20, rel=0.02)
    assert primary.evidence["other_ranks_ms"]["forward"] == pytest.approx(4, rel=0.02)
    assert primary.evidence["lag_share"] == pytest.approx(20 / 31, rel=0.03)


def test_after_a_rank_fell_silent_nothing_is_said_of_communication():
    rows = ranks_of(3, 400, sync_ms=30.0)
    rows[2] = {name: values[:81] for name, values in rows[2].items()}
    steps = join(*rows)
    found = build_context(tables_of({"step_time": steps}), run_of(steps), POLICY, joined_by_those_that_go_on(rows, 80))
    assert "COMMUNICATION_BOUND" not in kinds(diagnose(found, POLICY))


def test_a_step_that_was_done_again_is_joined_as_it_was_done_last():
    rows = ranks_of(2, late={(1, "forward"): 40.0})
    again = [
        step_rows(STEPS, rank=rank, incarnation=2, started_ns=int(part["started_ns"].max()) + 10**9, grad_sync_ms=1.0)
        for rank, part in enumerate(rows)
    ]
    assert kinds(judge([*rows, *again])) == ["COMPUTE_BOUND"]


def test_one_process_has_no_rules_on_ranks():
    assert kinds(judge([step_rows(STEPS)])) == ["COMPUTE_BOUND"]


def test_the_host_of_the_laggard_is_in_the_evidence():
    rows = ranks_of(2, late={(1, "forward"): 40.0})
    steps = join(*rows)
    run = run_of(steps)
    hosts = tuple(RankShape(rank=one.rank, wall_ns=one.wall_ns, host=f"node{one.rank}") for one in run.ranks)
    run = type(run)(ranks=hosts, world_size=2, facts=run.facts)
    primary = diagnose(build_context(tables_of({"step_time": steps}), run, POLICY), POLICY).primary
    assert primary.evidence["hosts"] == ["node1"]


def test_a_thousand_ranks_are_told_in_a_sentence():
    turns = {(rank, "forward"): np.where(np.arange(32) % 4 == rank % 4, 40.0, 0.0) for rank in range(0, 1_024, 2)}
    primary = judge(ranks_of(1_024, steps=32, late={**turns, (7, "input_wait"): 100.0})).primary
    assert (primary.kind, primary.ranks) == ("INPUT_STRAGGLER", (7,))
    assert len(primary.summary) < 200
