"""The report of a run that was rolled up says what the report of all its rows would say."""

from __future__ import annotations

import msgspec
import pytest
import run_factory
from run_factory import GIB, RunPlan, make_run_folder

from traceml_core.core.phases import Phase
from traceml_core.history import bounded_rows, rank_window
from traceml_core.reporting.final import build_summary

PLAN = RunPlan(
    steps=3_000,
    ranks=2,
    warmup_steps=5,
    device="cuda",
    tokens=100,
    around_ms={Phase.CHECKPOINT: (50, 300.0), Phase.VALIDATION: (500, 900.0)},
    rank_phases_ms={0: {Phase.GRAD_SYNC: 4.0}, 1: {Phase.FORWARD: 8.0}},
    owners_ms={"EMA": 2.0},
    rss_bytes=lambda step: (1 + step * 0.0005) * GIB,
    gpu_peak_bytes=lambda number: (10 + number * 0.001) * GIB,
)
CREEPS = {"GPU_MEMORY_CREEP", "CHECKPOINT_HEAVY", "HOST_MEMORY_CREEP"}
RESTARTED = msgspec.structs.replace(PLAN, restart_after=2_000, redone_steps=300)


@pytest.fixture(scope="module", params=[PLAN, RESTARTED], ids=["one start", "restarted"])
def summaries(request, tmp_path_factory):
    """Of the same run: with few details, and with every row."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_factory, "ROWS_A_BATCH", 50)
        for detail in (256, 100_000):
            patch.setattr(bounded_rows, "LARGEST_DETAIL", detail)
            patch.setattr(rank_window, "PORTION_STEPS", 100)
            found.append(build_summary(make_run_folder(tmp_path_factory.mktemp("runs"), request.param)))
    return found


def test_the_same_issues_are_found(summaries):
    rolled, whole = summaries
    kinds = {issue.kind for section in whole.sections.values() for issue in section.issues}
    assert kinds >= ({"CHECKPOINT_HEAVY"} if whole.telemetry.incarnations > 2 else CREEPS)
    for name, section in whole.sections.items():
        assert [issue.kind for issue in rolled.sections[name].issues] == [issue.kind for issue in section.issues]
        for issue, other in zip(rolled.sections[name].issues, section.issues, strict=True):
            assert (issue.impact_share or 0) == pytest.approx(other.impact_share or 0, rel=0.01)


def test_sums_and_means_and_extremes_are_the_same(summaries):
    rolled, whole = summaries
    assert rolled.run.steps == whole.run.steps == 3_000
    assert rolled.run.tokens_per_s == pytest.approx(whole.run.tokens_per_s, rel=0.005)
    for part, other in zip(rolled.time_budget.parts, whole.time_budget.parts, strict=True):
        assert part.seconds == pytest.approx(other.seconds, rel=1e-9)
    for name, section in whole.sections.items():
        for metric, stat in section.metrics.items():
            found = rolled.sections[name].metrics[metric]
            assert found.count == pytest.approx(stat.count, rel=0.002), metric
            assert found.mean == pytest.approx(stat.mean, rel=0.01), metric
            assert found.max == pytest.approx(stat.max, rel=1e-3), metric
            assert found.p95 == pytest.approx(stat.p95, rel=0.025), metric


def test_warmup_and_redone_work_are_the_same(summaries):
    rolled, whole = summaries
    assert rolled.sections["step_time"].warmup_steps == whole.sections["step_time"].warmup_steps
    assert rolled.telemetry.rows_received == whole.telemetry.rows_received


def test_the_series_is_made_of_equal_blocks_of_all_steps(summaries):
    series = summaries[0].sections["step_time"].series
    assert len(series) <= 1_000
    assert sum(block.count for block in series) == 3_000
    size = series[0].count
    assert [block.first_step for block in series] == list(range(1, 3_001, size))
    assert [block.warmup for block in series[:3]] == [True, False, False]


def test_the_rank_that_lags_is_told_from_all_steps(summaries):
    rolled, whole = (
        next(issue for issue in summary.sections["step_time"].issues if issue.kind == "COMPUTE_STRAGGLER")
        for summary in summaries
    )
    assert rolled.ranks == whole.ranks == (1,)
    steps = whole.evidence["joined_steps"]
    warmed_up_again = 5 if summaries[1].telemetry.incarnations > 2 else 0
    assert rolled.evidence["joined_steps"] == steps + warmed_up_again
    assert rolled.evidence["incomplete_steps"] == whole.evidence["incomplete_steps"] == 0
    for name in ("lag_share", "lag_ms", "phase_share_of_lag"):
        assert rolled.evidence[name] == pytest.approx(whole.evidence[name], rel=0.01), name
