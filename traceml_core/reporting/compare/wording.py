"""What a comparison says in words: what is true, why it is judged so, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from traceml_core.core.units import percent_change, percent_exact, percent_range
from traceml_core.reporting.compare.model import Change, ComparedMetric, Difference, Verdict
from traceml_core.reporting.compare.policy import COMPARE_POLICY
from traceml_core.reporting.compare.sections.step_time import MEAN_STEP, UNDISTURBED_STEP

_MOST_PARTS = 3
_BY_TIME = ("slower", "faster")
_BY_SIZE = ("higher", "lower")


def headline(decider: ComparedMetric | None, metrics: Sequence[ComparedMetric]) -> str:
    """What moved, by how much, in which parts.

    Such as 'B is slower by 14% (11 to 17%), of it waiting for data 12 points.'
    """
    if decider is None:
        return "The time of a step was measured on neither side, so there is nothing to compare."
    if decider.change is None:
        return f"The {decider.label} was measured on one side only, so there is nothing to compare."
    change = decider.change
    amount = f"{percent_change(abs(change.share), sign=False)} {_interval(change)}"
    up, down = _BY_TIME if decider.unit == "ms" else _BY_SIZE
    word = up if change.share > 0 else down
    subject = "B" if decider.name == UNDISTURBED_STEP else f"B's {decider.label}"
    if decider.verdict == "EQUIVALENT":
        return f"{subject} is as A, within the margin: {percent_change(change.share)} {_interval(change, signed=True)}."
    if decider.verdict == "INCONCLUSIVE":
        signed = f"{percent_change(change.share)} {_interval(change, signed=True)}"
        told = f"may be {up}, {down} or as A: these runs cannot tell"
        if _is_certain(change):
            told = f"is {word}, and may be by more than the margin: these runs cannot tell"
        return f"{subject} {told}. Seen: {signed}."
    return f"{subject} is {word} by {amount}{_parts(decider, metrics)}."


def reasons(
    verdict: Verdict, decider: ComparedMetric | None, metrics: Sequence[ComparedMetric], margin_share: float
) -> list[str]:
    """Why it is judged so; what the spread between runs rests on; what else moved."""
    if decider is None or decider.change is None:
        return [f"At least {COMPARE_POLICY.minimum_blocks} steps after warm-up are needed on both sides."]
    said = [_rule(verdict, decider.change, margin_share), _spread(decider.change)]
    if verdict == "INCONCLUSIVE":
        smallest = percent_change(decider.change.smallest_share, sign=False)
        said.append(f"The smallest change that these runs would have shown (4 times of 5) is {smallest}.")
    calm = next((one for one in metrics if one.name == UNDISTURBED_STEP), None)
    if decider.name == MEAN_STEP and calm is not None and calm.verdict is not None:
        said.append(f"The undisturbed step is {calm.verdict}: what moved are steps longer than that.")
    also = [one for one in metrics if one is not decider and one.part_of is None and _moved(one)]
    said += [f"Also: {one.label} {percent_change(one.change.share)}, {one.verdict}." for one in also if one.change]
    gone = [one.label for one in metrics if one.decides and (one.a is None) != (one.b is None)]
    if gone:
        said.append(f"Measured on one side only, so not judged: {', '.join(gone)}.")
    return said


def action(verdict: Verdict, decider: ComparedMetric | None, differences: Sequence[Difference], runs: int) -> str:
    """What to do next."""
    weighty = [difference.what for difference in differences if difference.weighty]
    if decider is None or decider.change is None:
        return (
            "Compare runs of the same kind that trained at least "
            f"{COMPARE_POLICY.minimum_blocks} steps after warm-up; `traceml report RUN` says what a run measured."
        )
    if verdict == "INCONCLUSIVE":
        needed = decider.change.runs_to_settle
        if needed is None:
            most = COMPARE_POLICY.most_runs
            return f"Measure on a quieter machine, or take a wider --margin: {most} runs a side would be too few."
        needed = max(needed, runs + 1)
        return f"Record {needed} runs a side, A and B in turn, and give them all: --a RUN --a RUN --b RUN --b RUN."
    if weighty:
        return f"Repeat with the same {', '.join(weighty)} on both sides before you trust the difference in time."
    if verdict == "REGRESSION":
        return "Look at what moved: `traceml report` on a run of B says what to do about it."
    return "Nothing needs to be done."


def _rule(verdict: Verdict, change: Change, margin_share: float) -> str:
    margin = percent_exact(margin_share)
    if verdict == "EQUIVALENT":
        return f"The 95% interval lies within the margin of {margin}."
    if verdict == "INCONCLUSIVE" and not _is_certain(change):
        return f"The 95% interval holds zero and reaches beyond the margin of {margin}."
    side = "above" if change.share > 0 else "below"
    most = "less than half" if verdict == "INCONCLUSIVE" else "most"
    return f"The 95% interval lies {side} zero, and {most} of it beyond the margin of {margin}."


def _is_certain(change: Change) -> bool:
    """Whether the interval holds no zero."""
    return change.low_share > 0 or change.high_share < 0


def _spread(change: Change) -> str:
    spread = percent_change(change.spread_share, sign=False)
    if change.spread_measured:
        return f"A spread between runs of {spread} is reckoned with: that of the runs given, and what is usual."
    return (
        "With one run a side the spread between runs is not known; "
        f"{spread} is reckoned with, the scatter within a run included."
    )


def _interval(change: Change, signed: bool = False) -> str:
    low, high = change.low_share, change.high_share
    if not signed and high < 0:
        low, high = -high, -low
    return f"({percent_range(low, high)})"


def _parts(decider: ComparedMetric, metrics: Sequence[ComparedMetric]) -> str:
    """The parts that moved the same way, the largest first."""
    whole = decider.change.share if decider.change else 0.0
    parts = [
        (one.change.share, one.label)
        for one in metrics
        if one.part_of == decider.name
        and one.change is not None
        and one.change.share * whole > 0
        and abs(one.change.share) >= COMPARE_POLICY.shown_part_share
    ]
    parts.sort(key=lambda part: -abs(part[0]))
    named = [f"{label} {points(share)}" for share, label in parts[:_MOST_PARTS]]
    return f", of it {', '.join(named)} points" if named else ""


def points(share: float) -> str:
    """A part's change in points of the whole, without its sign."""
    return percent_change(abs(share), sign=False).rstrip("%")


def _moved(metric: ComparedMetric) -> bool:
    return metric.decides and metric.verdict in ("REGRESSION", "IMPROVEMENT")
