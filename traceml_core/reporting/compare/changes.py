"""From the readings of both sides to the change of each metric.

A ratio is reckoned in logarithms. A part's change is its share of the whole's: `(b - a) / L`, with `L` the logarithmic
mean of the whole on both sides. The parts then add up to the whole's change (exactly with one run a side), and swapping
the sides only turns the sign (known as LMDI: Ang, Energy Policy 33, 2005). Both are shown as shares of A.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from traceml_core.reporting.compare.metric_row import ComparedSection, MetricRow, Reading
from traceml_core.reporting.compare.model import Change, ComparedMetric, Verdict
from traceml_core.reporting.compare.policy import COMPARE_POLICY
from traceml_core.reporting.compare.verdict import mirrored, settling_half_width, verdict_on
from traceml_core.reporting.summary import FinalSummary
from traceml_core.statistics.run_means import (
    arithmetic_mean,
    logarithmic_mean,
    run_logarithm,
    run_mean,
    weighted_mean,
)
from traceml_core.statistics.two_sides import RunMean, SidesApart, runs_for, sides_apart

_LARGEST = math.log(1e6)

Sides = tuple[list[Reading], list[Reading]]


def compared_metrics(
    section: ComparedSection, a: Sequence[FinalSummary], b: Sequence[FinalSummary], margin_share: float
) -> list[ComparedMetric]:
    """A section's metrics on both sides; those that neither side measured are left out."""
    sides = {row.name: (_readings(row, a), _readings(row, b)) for row in section.rows}
    computing = 0.0 if _are_the_same(a, b) else max(_computing_share(run) for run in (*a, *b))
    return [
        _compared(section.name, row, sides, computing, margin_share) for row in section.rows if any(sides[row.name])
    ]


def _readings(row: MetricRow, runs: Sequence[FinalSummary]) -> list[Reading]:
    """One reading a run; none at all where some run of the side did not measure it."""
    readings = [row.read(run) for run in runs]
    known = [reading for reading in readings if reading is not None]
    return known if len(known) == len(readings) else []


def _are_the_same(a: Sequence[FinalSummary], b: Sequence[FinalSummary]) -> bool:
    """Whether both sides are the same runs, which met the same machine."""
    return sorted(run.run.run_id for run in a) == sorted(run.run.run_id for run in b)


def _computing_share(run: FinalSummary) -> float:
    """The share of the time in which the training computes on the CPU, whose speed other work on a machine changes.

    While a device computes, the CPU is busy waiting for it.
    """
    percent = run.sections["process"].metrics.get("cpu_percent") if "process" in run.sections else None
    if run.run.device not in (None, "cpu") or percent is None or percent.mean is None:
        return 0.0
    return min(percent.mean / 100, 1.0)


class _Apart(msgspec.Struct, frozen=True):
    """How far the sides are apart, and what makes shares of A, and values in the metric's own unit, of that."""

    sides: SidesApart
    as_share: Callable[[float], float]
    as_value: Callable[[float], float]


def _compared(
    section: str, row: MetricRow, sides: dict[str, Sides], computing_share: float, margin_share: float
) -> ComparedMetric:
    of_a, of_b = sides[row.name]
    apart = _apart(row, (of_a, of_b), None if row.part_of is None else sides[row.part_of], computing_share)
    verdict = None if apart is None else _judged(row, apart.sides, margin_share)
    return ComparedMetric(
        section=section,
        name=row.name,
        label=row.label,
        unit=row.unit,
        decides=row.decides,
        part_of=row.part_of,
        a=_mean(of_a) if apart is None else apart.as_value(apart.sides.first),
        b=_mean(of_b) if apart is None else apart.as_value(apart.sides.second),
        change=None if apart is None else _change(apart, verdict, margin_share),
        verdict=verdict,
    )


def _change(apart: _Apart, verdict: Verdict | None, margin_share: float) -> Change:
    sides, as_share = apart.sides, apart.as_share
    runs = None
    if verdict == "INCONCLUSIVE":
        runs = runs_for(settling_half_width(sides, margin_share), sides.run_spread, COMPARE_POLICY.most_runs)
    return Change(
        share=as_share(sides.estimate),
        low_share=as_share(sides.low),
        high_share=as_share(sides.high),
        smallest_share=as_share(sides.smallest_told),
        runs_to_settle=runs,
        spread_share=sides.run_spread,
        spread_measured=sides.spread_measured,
    )


def _apart(row: MetricRow, sides: Sides, whole: Sides | None, computing_share: float) -> _Apart | None:
    """Null where a side did not measure it, or where there is no ratio: from nothing, or to nothing."""
    of_ratio = sides if whole is None else whole
    if not all(sides) or not all(of_ratio) or min(_smallest(side) for side in of_ratio) <= 0:
        return None
    a, b = of_ratio
    unseen = row.computing_spread * computing_share
    ratio = sides_apart(_logarithms(a), _logarithms(b), row.spread, COMPARE_POLICY.scatter_factor, unseen)
    return _Apart(ratio, _change_of_ratio, math.exp) if whole is None else _part(row, sides, ratio, unseen)


def _change_of_ratio(logarithm: float) -> float:
    """The change that a ratio's logarithm says; a million times is as much as is told."""
    return math.expm1(min(logarithm, _LARGEST))


def _part(row: MetricRow, sides: Sides, whole: SidesApart, unseen_spread: float) -> _Apart:
    """A part in units of the whole. Parts vary each by itself: with the root of what they take of it."""
    a, b = sides
    before = math.exp(whole.first)
    unit = logarithmic_mean(*sorted((before, math.exp(whole.second))))  # to the last bit the same the other way round
    root = math.sqrt(abs(arithmetic_mean(_means(a)) + arithmetic_mean(_means(b))) / (2 * unit))
    apart = sides_apart(
        _in_units(a, unit),
        _in_units(b, unit),
        row.spread * root,
        COMPARE_POLICY.scatter_factor,
        unseen_spread * root,
    )
    return _Apart(apart, lambda value: value * unit / before, lambda value: value * unit)


def _judged(row: MetricRow, apart: SidesApart, margin_share: float) -> Verdict | None:
    if row.better is None:
        return None
    verdict = verdict_on(apart, margin_share)
    return verdict if row.better == "lower" else mirrored(verdict)


def _logarithms(side: list[Reading]) -> list[RunMean]:
    return [run_logarithm(one.values, one.counts) for one in side]


def _in_units(side: list[Reading], unit: float) -> list[RunMean]:
    return [run_mean(one.values, one.counts, unit) for one in side]


def _means(side: list[Reading]) -> list[float]:
    return [weighted_mean(one.values, one.counts) for one in side]


def _mean(side: list[Reading]) -> float | None:
    return arithmetic_mean(_means(side)) if side else None


def _smallest(side: list[Reading]) -> float:
    return min(_means(side))
