"""From the readings of both sides to the change of each metric.

A ratio is reckoned in logarithms. A part's change is its share of the whole's: `(b - a) / L`, with `L` the logarithmic
mean of the whole on both sides. The parts then add up to the whole's change (exactly with one run a side), and swapping
the sides only turns the sign (known as LMDI: Ang, Energy Policy 33, 2005). Both are shown as shares of A.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from traceml_core.reporting.compare.metric_row import ComparedSection, MetricRow, Reading
from traceml_core.reporting.compare.model import Change, ComparedMetric, Verdict
from traceml_core.reporting.compare.policy import COMPARE_POLICY
from traceml_core.reporting.compare.verdict import mirrored, settling_half_width, verdict_on
from traceml_core.reporting.summary import FinalSummary
from traceml_core.statistics.run_means import (
    arithmetic_mean,
    geometric_mean,
    logarithmic_mean,
    run_logarithm,
    run_mean,
    weighted_mean,
)
from traceml_core.statistics.two_sides import RunMean, SidesApart, runs_for, sides_apart

Sides = tuple[list[Reading], list[Reading]]


def compared_metrics(
    section: ComparedSection, a: Sequence[FinalSummary], b: Sequence[FinalSummary], margin_share: float
) -> list[ComparedMetric]:
    """A section's metrics on both sides; those that neither side measured are left out."""
    sides = {row.name: (_readings(row, a), _readings(row, b)) for row in section.rows}
    return [_compared(section.name, row, sides, margin_share) for row in section.rows if any(sides[row.name])]


def _readings(row: MetricRow, runs: Sequence[FinalSummary]) -> list[Reading]:
    """One reading a run; none at all where some run of the side did not measure it."""
    readings = [row.read(run) for run in runs]
    known = [reading for reading in readings if reading is not None]
    return known if len(known) == len(readings) else []


def _compared(section: str, row: MetricRow, sides: dict[str, Sides], margin_share: float) -> ComparedMetric:
    of_a, of_b = sides[row.name]
    change, verdict = None, None
    if of_a and of_b:
        whole = sides[row.part_of] if row.part_of is not None else None
        change, verdict = _change(row, (of_a, of_b), whole, margin_share)
    average = _mean if row.part_of is not None else _run_average
    return ComparedMetric(
        section=section,
        name=row.name,
        label=row.label,
        unit=row.unit,
        decides=row.decides,
        part_of=row.part_of,
        a=average(of_a) if of_a else None,
        b=average(of_b) if of_b else None,
        change=change,
        verdict=verdict,
    )


def _change(
    row: MetricRow, sides: Sides, whole: Sides | None, margin_share: float
) -> tuple[Change | None, Verdict | None]:
    measured = sides if whole is None else whole
    if not all(measured) or min(_smallest(side) for side in measured) <= 0:
        return None, None  # from or to nothing, there is no ratio
    apart, as_share = _ratio(row, sides) if whole is None else _part(row, sides, whole)
    verdict = _judged(row, apart, margin_share)
    runs = None
    if verdict == "INCONCLUSIVE":
        runs = runs_for(settling_half_width(apart, margin_share), apart.run_spread, COMPARE_POLICY.most_runs)
    return Change(
        share=as_share(apart.estimate),
        low_share=as_share(apart.low),
        high_share=as_share(apart.high),
        smallest_share=as_share(apart.smallest_told),
        runs_to_settle=runs,
        spread_share=apart.run_spread,
        spread_measured=apart.spread_measured,
    ), verdict


def _ratio(row: MetricRow, sides: Sides) -> tuple[SidesApart, Callable[[float], float]]:
    """How far the sides are apart in logarithms, and what makes shares of A of that."""
    a, b = sides
    return sides_apart(_logarithms(a), _logarithms(b), row.spread, COMPARE_POLICY.scatter_factor), math.expm1


def _part(row: MetricRow, sides: Sides, whole: Sides) -> tuple[SidesApart, Callable[[float], float]]:
    """The same for a part, in units of the whole. Parts vary each by itself: with the root of what they take of it."""
    a, b = sides
    before, after = (_run_average(side) for side in whole)
    unit = logarithmic_mean(before, after)
    spread = row.spread * math.sqrt(abs(_mean(a) + _mean(b)) / (2 * unit))
    apart = sides_apart(_in_units(a, unit), _in_units(b, unit), spread, COMPARE_POLICY.scatter_factor)
    return apart, lambda value: value * unit / before


def _judged(row: MetricRow, apart: SidesApart, margin_share: float) -> Verdict | None:
    if row.better is None:
        return None
    verdict = verdict_on(apart, margin_share)
    return verdict if row.better == "lower" else mirrored(verdict)


def _logarithms(side: list[Reading]) -> list[RunMean]:
    return [run_logarithm(one.values, one.counts) for one in side]


def _in_units(side: list[Reading], unit: float) -> list[RunMean]:
    return [run_mean(one.values, one.counts, unit) for one in side]


def _mean(side: list[Reading]) -> float:
    return arithmetic_mean([weighted_mean(one.values, one.counts) for one in side])


def _smallest(side: list[Reading]) -> float:
    return min(weighted_mean(one.values, one.counts) for one in side)


def _run_average(side: list[Reading]) -> float:
    return geometric_mean([weighted_mean(one.values, one.counts) for one in side])
