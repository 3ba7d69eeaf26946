"""The verdict rules. All is judged in logarithms, in which twice as much and half as much lie equally far from none."""

from __future__ import annotations

import math
from collections.abc import Sequence

from traceml_core.reporting.compare.model import ComparedMetric, Verdict
from traceml_core.statistics.two_sides import SidesApart


def verdict_on(apart: SidesApart, margin_share: float) -> Verdict:
    """The verdict on a metric that is better when lower.

    A change has moved where the interval holds no zero and more than half of it lies beyond the margin. If one end were
    enough, runs that scatter widely would make a regression of a change well within the margin.
    """
    margin = math.log1p(margin_share)
    if apart.low > 0 and apart.estimate > margin:
        return "REGRESSION"
    if apart.high < 0 and apart.estimate < -margin:
        return "IMPROVEMENT"
    if -margin <= apart.low and apart.high <= margin:
        return "EQUIVALENT"
    return "INCONCLUSIVE"


def mirrored(verdict: Verdict) -> Verdict:
    """The same verdict seen from the other side."""
    if verdict == "REGRESSION":
        return "IMPROVEMENT"
    return "REGRESSION" if verdict == "IMPROVEMENT" else verdict


def settling_half_width(apart: SidesApart, margin_share: float) -> float:
    """An interval this narrow around the same estimate is conclusive: it lies within the margin, or beyond zero."""
    estimate, margin = abs(apart.estimate), math.log1p(margin_share)
    return estimate if estimate > margin else margin - estimate


def deciding_metric(metrics: Sequence[ComparedMetric], *, trains: bool) -> ComparedMetric | None:
    """The metric that the whole is judged by: the first that regressed, else that improved, else that was measured.

    What is missing outranks no regression that was measured. But nothing that is merely no worse stands in for the time
    of a step. Where only one side has that, it decides, and cannot be judged; where neither side of a training
    (`trains`) has it, nothing decides.
    """
    deciding = [metric for metric in metrics if metric.decides]
    judged = [metric for metric in deciding if metric.verdict is not None]
    regressed = [metric for metric in judged if metric.verdict == "REGRESSION"]
    improved = [metric for metric in judged if metric.verdict == "IMPROVEMENT"]
    one_sided = [metric for metric in deciding[:1] if (metric.a is None) != (metric.b is None)]
    timed = [metric for metric in judged if metric.unit == "ms"]
    return next(iter((*regressed, *one_sided, *improved, *(judged if timed or not trains else ()))), None)
