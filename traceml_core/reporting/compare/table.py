"""A comparison's table as text cells: the same in every format."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from traceml_core.core.units import (
    MISSING,
    byte_size,
    count,
    milliseconds,
    percent,
    percent_change,
    percent_range,
    rate,
)
from traceml_core.reporting.compare.model import ComparedMetric, ComparedRun, Comparison, Unit

HEADINGS = ("", "A", "B", "change", "95% interval", "verdict")

_TEXT: dict[Unit, Callable[[float | None], str]] = {
    "ms": milliseconds,
    "bytes": byte_size,
    "percent": lambda value: percent(None if value is None else value / 100),
    "per_s": rate,
    "watt": lambda value: MISSING if value is None else f"{count(value)} W",
}


class TableLine(msgspec.Struct, frozen=True):
    """One metric: its cells under `HEADINGS`, and whether it is a part of the metric above it."""

    cells: tuple[str, ...]
    part: bool


def table_lines(comparison: Comparison) -> list[TableLine]:
    """The metrics in their order; parts that are next to nothing on both sides are left out."""
    return [_line(metric) for metric in comparison.metrics if not _negligible(metric, comparison.metrics)]


def side_text(runs: Sequence[ComparedRun]) -> str:
    """The runs of a side in words: 'digits, 200 steps'; of several their number, and statuses other than completed."""
    names = sorted({run.name for run in runs})
    named = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    steps = sorted({run.steps for run in runs})
    counted = f"{count(steps[0])} steps" if len(steps) == 1 else f"{count(steps[0])} to {count(steps[-1])} steps"
    ends = sorted({run.status for run in runs} - {"completed"})
    several = f"{len(runs)} runs of " if len(runs) > 1 else ""
    return f"{several}{named}, {counted}" + (f", {' and '.join(ends)}" if ends else "")


def _line(metric: ComparedMetric) -> TableLine:
    change, text = metric.change, _TEXT[metric.unit]
    moved, interval = MISSING, MISSING
    if change is not None:
        moved = percent_change(change.share)
        if metric.verdict is not None:
            interval = percent_range(change.low_share, change.high_share)
        if metric.part_of is not None:
            moved = moved.replace("%", " pt")
            interval = interval.replace("%", " pt")
    cells = (metric.label, text(metric.a), text(metric.b), moved, interval, _verdict(metric))
    return TableLine(cells, metric.part_of is not None)


def _verdict(metric: ComparedMetric) -> str:
    """The verdict; of a part only where it moved."""
    if metric.part_of is not None and metric.verdict in ("EQUIVALENT", "INCONCLUSIVE"):
        return ""
    return metric.verdict or ""


def _negligible(metric: ComparedMetric, metrics: Sequence[ComparedMetric]) -> bool:
    """A part below a thousandth of its whole on both sides: a phase that this training does not have."""
    whole = next((one for one in metrics if one.name == metric.part_of), None)
    if whole is None or metric.a is None or metric.b is None:
        return False
    return max(abs(metric.a), abs(metric.b)) < 0.001 * max(whole.a or 0.0, whole.b or 0.0)
