"""What a comparison concludes: from which differences, how surely, and what it says of what it cannot tell."""

from __future__ import annotations

import math

import msgspec
import pytest
from compare_factory import STEP_MS, make_compared, slower
from hypothesis import given, settings
from hypothesis import strategies as st

from traceml_core.core.phases import Phase
from traceml_core.reporting.compare.core import compare
from traceml_core.reporting.compare.verdict import mirrored, settling_half_width, verdict_on
from traceml_core.statistics.two_sides import SidesApart

MIRROR = {"REGRESSION": "IMPROVEMENT", "IMPROVEMENT": "REGRESSION"}


def metric_of(comparison, name):
    return next(metric for metric in comparison.metrics if metric.name == name)


def side(*seeds, phases_ms=STEP_MS, **fields):
    return [make_compared(phases_ms, series={"seed": seed}, **fields) for seed in seeds]


def test_a_slower_phase_is_a_regression_that_names_the_phase_and_its_part():
    told = compare(side(1), side(2, phases_ms=slower(Phase.INPUT_WAIT, 1.2)))

    assert told.verdict == "REGRESSION"
    assert told.headline.startswith("B is slower by 12% (")
    assert ", of it waiting for data 12 points" in told.headline
    assert metric_of(told, "undisturbed_step_ms").change.share == pytest.approx(0.12, abs=0.005)
    assert metric_of(told, "input_wait_ms").change.share == pytest.approx(0.12, abs=0.005)


def test_a_faster_phase_is_an_improvement():
    told = compare(side(1), side(2, phases_ms=slower(Phase.BACKWARD, -1.5)))

    assert told.verdict == "IMPROVEMENT"
    assert told.headline.startswith("B is faster by 15% (")
    assert "of it backward 15 points" in told.headline


def test_runs_that_are_alike_are_equivalent():
    told = compare(side(1), side(2))

    assert told.verdict == "EQUIVALENT"
    assert "within the margin" in told.headline


def test_a_margin_that_is_narrower_than_one_run_a_side_can_tell_is_inconclusive_and_says_what_would_settle_it():
    told = compare(side(1), side(2), margin_share=0.01)
    change = metric_of(told, "undisturbed_step_ms").change

    assert told.verdict == "INCONCLUSIVE"
    assert change.smallest_share > 0.03
    assert change.runs_to_settle > 1
    assert f"Record {change.runs_to_settle} runs a side" in told.action
    assert any(reason.startswith("The smallest change") for reason in told.reasons)


def test_one_run_a_side_says_that_the_spread_is_assumed_and_several_that_it_is_theirs():
    one, several = compare(side(1), side(2)), compare(side(1, 2, 3), side(4, 5, 6))

    assert any("With one run a side" in reason for reason in one.reasons)
    assert any("that of the runs given" in reason for reason in several.reasons)
    assert not metric_of(one, "undisturbed_step_ms").change.spread_measured
    assert metric_of(several, "undisturbed_step_ms").change.spread_measured


def test_with_one_run_a_side_the_share_of_the_time_that_the_cpu_computes_widens_the_interval():
    def width(seed, device, cpu_percent):
        told = compare(*(side(one, device=device, cpu_percent=cpu_percent, run_id=f"r{one}") for one in (1, seed)))
        change = metric_of(told, "undisturbed_step_ms").change
        return change.high_share - change.low_share

    waits, half, computes = (width(2, "cpu", cpu_percent) for cpu_percent in (0.0, 50.0, 160.0))

    assert half == pytest.approx(waits * math.hypot(0.012, 0.02) / 0.012, rel=0.1)
    assert computes == pytest.approx(waits * math.hypot(0.012, 0.04) / 0.012, rel=0.1)
    assert width(2, "cuda", 100.0) == waits
    assert width(1, "cpu", 100.0) == pytest.approx(waits, rel=0.1)  # the same run on both sides met the same machine


def test_runs_of_one_side_that_differ_much_make_the_interval_wide():
    unlike = [*side(1), *side(2, phases_ms=slower(Phase.FORWARD, 2.0)), *side(3, phases_ms=slower(Phase.FORWARD, -1.0))]
    wide = metric_of(compare(unlike, side(4, 5, 6)), "undisturbed_step_ms").change
    narrow = metric_of(compare(side(1, 2, 3), side(4, 5, 6)), "undisturbed_step_ms").change

    assert wide.high_share - wide.low_share > 10 * (narrow.high_share - narrow.low_share)


def test_five_runs_a_side_tell_what_one_cannot():
    phases_ms = slower(Phase.FORWARD, 0.25)
    one = compare(side(1), side(2, phases_ms=phases_ms), 0.01)
    five = compare(side(*range(5)), side(*range(5, 10), phases_ms=phases_ms), 0.01)

    assert (one.verdict, five.verdict) == ("INCONCLUSIVE", "REGRESSION")


@pytest.mark.parametrize(("milliseconds", "word"), [(0.35, "slower"), (-0.35, "faster")])
def test_a_change_that_is_certain_but_perhaps_within_the_margin_is_inconclusive_and_said_to_be_certain(
    milliseconds, word
):
    told = compare(side(*range(5)), side(*range(5, 10), phases_ms=slower(Phase.FORWARD, milliseconds)), 0.04)
    change = metric_of(told, "undisturbed_step_ms").change
    ends = sorted([abs(change.low_share), abs(change.high_share)])

    assert change.low_share * change.high_share > 0
    assert ends[0] < abs(change.share) < 0.04 < ends[1]
    assert told.verdict == "INCONCLUSIVE"
    assert told.headline.startswith(f"B is {word}, and may be by more than the margin")
    assert any("less than half of it beyond the margin of 4%" in reason for reason in told.reasons)
    assert change.runs_to_settle > 5


@given(st.floats(-0.2, 0.2), st.floats(0.0, 0.2), st.floats(0.001, 0.15))
def test_a_verdict_says_where_its_interval_lies(estimate, half_width, margin_share):
    apart = SidesApart(first=0.0, second=estimate, half_width=half_width, run_spread=0.01, spread_measured=True)
    margin = math.log1p(margin_share)
    verdict = verdict_on(apart, margin_share)

    if verdict == "REGRESSION":
        assert apart.low > 0 and apart.high - margin > margin - apart.low
    elif verdict == "EQUIVALENT":
        assert -margin <= apart.low and apart.high <= margin
    elif verdict == "INCONCLUSIVE":
        assert apart.high > margin or apart.low < -margin
        assert settling_half_width(apart, margin_share) <= half_width
    swapped = msgspec.structs.replace(apart, second=-estimate)
    assert verdict_on(swapped, margin_share) == mirrored(verdict)


def test_warm_up_is_left_out():
    warm = [make_compared(series={"seed": 2, "warmup": 40})]

    assert compare(side(1), warm).verdict == "EQUIVALENT"


def test_a_stall_now_and_then_is_in_the_mean_step_and_not_in_the_typical_one():
    stalled = [make_compared(series={"seed": seed, "every": {10: 30.0}}) for seed in range(4, 8)]
    told = compare(side(0, 1, 2, 3), stalled)

    assert metric_of(told, "undisturbed_step_ms").verdict == "EQUIVALENT"
    assert metric_of(told, "step_interval_ms").verdict == "REGRESSION"
    assert told.verdict == "REGRESSION"
    assert told.headline.startswith("B's mean step is slower by 30%")
    assert any("EQUIVALENT: what moved are steps longer than that" in reason for reason in told.reasons)


def test_the_parts_add_up_to_the_change_of_the_undisturbed_step():
    told = compare(side(1), side(2, phases_ms={**slower(Phase.FORWARD, 2.0), Phase.INPUT_WAIT: 1.0}))
    parts = [metric.change.share for metric in told.metrics if metric.part_of == "undisturbed_step_ms"]

    assert sum(parts) == pytest.approx(metric_of(told, "undisturbed_step_ms").change.share, rel=1e-6)


def test_the_lag_of_the_slowest_rank_is_a_part_where_there_are_several():
    alone = compare(side(1), side(2))
    a = [make_compared(series={"seed": 1}, world_size=2)]
    b = [make_compared(series={"seed": 2, "lag_ms": 2.0}, world_size=2)]

    assert "slowest_rank_ms" not in [metric.name for metric in alone.metrics]
    assert metric_of(compare(a, b), "slowest_rank_ms").change.share == pytest.approx(0.2, abs=0.01)


def test_more_memory_is_a_regression_though_the_time_is_the_same():
    told = compare(side(1), side(2, rss_bytes=8.0e8))

    assert told.verdict == "REGRESSION"
    assert told.headline.startswith("B's process memory is higher by 25%")


def test_a_cpu_run_regresses_though_it_has_no_gpu_memory():
    told = compare(side(1, peak_bytes=1e9), side(2, phases_ms=slower(Phase.FORWARD, 3.0)))

    assert told.verdict == "REGRESSION"
    assert metric_of(told, "peak_allocated_bytes").verdict is None
    assert any("one side only" in reason and "GPU memory" in reason for reason in told.reasons)


def test_a_phase_that_was_not_measured_is_null_and_not_nothing():
    told = compare(side(1), side(2, phases_ms={**STEP_MS, Phase.FORWARD: None}))
    forward = metric_of(told, "forward_ms")

    assert (forward.a is None, forward.b, forward.change, forward.verdict) == (False, None, None, None)


def test_runs_without_steps_are_inconclusive_and_say_what_to_do():
    empty = [make_compared(series={"steps": 0}, rss_bytes=None, status="failed")]
    told = compare(side(1), empty)

    assert told.verdict == "INCONCLUSIVE"
    assert "nothing to compare" in told.headline
    assert "at least 8 steps" in told.action


def test_trainings_too_short_to_time_are_not_equivalent_by_their_memory_alone():
    short = [make_compared(series={"steps": 5})], [make_compared(slower(Phase.FORWARD, 40.0), series={"steps": 5})]
    told = compare(*short)

    assert told.verdict == "INCONCLUSIVE"
    assert "measured on neither side" in told.headline
    assert metric_of(told, "rss_bytes").verdict == "EQUIVALENT"


def test_steps_of_two_kinds_are_compared_and_steps_that_took_no_time_are_not():
    two_kinds = [make_compared(series={"seed": seed, "every": {2: 300.0}}) for seed in (1, 2)]
    no_time = [make_compared(dict.fromkeys(STEP_MS, 0.0), series={"steps": 20}, rss_bytes=None)]

    assert metric_of(compare(two_kinds[:1], two_kinds[1:]), "undisturbed_step_ms").change is not None
    assert compare(side(1), no_time).verdict == "INCONCLUSIVE"
    assert compare(no_time, no_time).verdict == "INCONCLUSIVE"


def test_runs_that_have_nothing_in_common_are_inconclusive_whatever_their_numbers():
    wild = [*side(1), *side(2, phases_ms={phase: ms * 1e6 for phase, ms in STEP_MS.items()}, rss_bytes=1.0)]
    told = compare(wild, [*side(3), *side(4, phases_ms={phase: ms / 1e4 for phase, ms in STEP_MS.items()})])

    assert told.verdict == "INCONCLUSIVE"
    assert metric_of(told, "undisturbed_step_ms").change.high_share <= 1e6


def test_facts_in_which_the_sides_differ_are_named_the_weighty_ones_first():
    b = side(2, batch_size=64, versions={"torch": "2.14.0"}, status="interrupted", precision="16-mixed")
    told = compare(side(1), b)
    named = {one.what: (one.a, one.b, one.weighty) for one in told.differences}

    assert not told.like_for_like
    assert named["batch size"] == ("32", "64", True)
    assert named["status"] == ("completed", "interrupted", True)
    assert named["precision"] == ("32-true", "16-mixed", True)
    assert named["torch version"] == ("2.13.0", "2.14.0", False)
    assert list(named)[-1] == "torch version"


def test_a_side_whose_own_runs_differ_is_named_too():
    told = compare([*side(1), *side(2, batch_size=64)], [*side(3), *side(4, batch_size=64)])

    assert [(one.what, one.a) for one in told.differences] == [("batch size", "32, 64")]


steps = st.fixed_dictionaries(
    {
        "phases_ms": st.fixed_dictionaries(
            {phase: st.floats(0.01, 50) for phase in (Phase.INPUT_WAIT, Phase.FORWARD, Phase.BACKWARD)}
        ),
        "series": st.fixed_dictionaries(
            {"steps": st.integers(8, 40), "jitter": st.floats(0, 1), "seed": st.integers(0, 9)}
        ),
        "rss_bytes": st.one_of(st.none(), st.floats(1e6, 1e12)),
        "peak_bytes": st.one_of(st.none(), st.floats(1e6, 1e11)),
    }
)
sides = st.lists(steps.map(lambda fields: make_compared(**fields)), min_size=1, max_size=3)
margins = st.floats(0.001, 0.5)


@settings(max_examples=50)
@given(sides, sides, margins)
def test_swapping_the_sides_mirrors_every_verdict(a, b, margin):
    there, back = compare(a, b, margin), compare(b, a, margin)

    assert [metric.name for metric in there.metrics] == [metric.name for metric in back.metrics]
    for one, other in zip(there.metrics, back.metrics, strict=True):
        assert (one.a, one.b) == (other.b, other.a)
        assert one.verdict == (None if other.verdict is None else mirrored(other.verdict))
    moved = {metric.verdict for metric in there.metrics if metric.decides}
    if not moved >= {"REGRESSION", "IMPROVEMENT"}:
        assert there.verdict == MIRROR.get(back.verdict, back.verdict)


@settings(max_examples=50)
@given(sides, margins)
def test_identical_summaries_never_move(a, margin):
    told = compare(a, a, margin)

    assert told.verdict in ("EQUIVALENT", "INCONCLUSIVE")
    assert {metric.verdict for metric in told.metrics} <= {"EQUIVALENT", "INCONCLUSIVE", None}


@settings(max_examples=50)
@given(sides, sides, margins)
def test_each_interval_holds_its_estimate_and_the_same_input_gives_the_same_answer(a, b, margin):
    told = compare(a, b, margin)

    assert msgspec.json.encode(told) == msgspec.json.encode(compare(a, b, margin))
    for change in (metric.change for metric in told.metrics if metric.change is not None):
        assert change.low_share <= change.share <= change.high_share
