"""The charts of steps: their time by phase from the first to the last, and how many took how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from traceml_core.core.phases import Phase
from traceml_core.core.units import count, milliseconds
from traceml_core.diagnostics.model import Stat
from traceml_core.reporting.card import phase_label
from traceml_core.reporting.html.axes import quiet_axis
from traceml_core.reporting.html.figure import Figure, marked_at, plain
from traceml_core.reporting.html.table import Table
from traceml_core.reporting.summary import FinalSummary, HistogramBin, Section, SeriesBlock

# A block of steps is drawn from its first step to the next one's.
STAIRS = "hv"
# The chart of steps goes up to so many times the 95th percentile.
USUAL_TIMES = 3
TIMELINE_PX = 360
# A shape as high as its chart, at a place of the horizontal axis.
UPRIGHT = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1}


def step_figures(summary: FinalSummary) -> list[Figure]:
    """The timeline of steps and the distribution of their times, as far as there are any."""
    section = summary.sections.get("step_time")
    if section is None:
        return []
    bins = [one for one in section.distribution or [] if one.to_ms > 0]
    timeline = [_timeline(section, section.series)] if section.series else []
    return [*timeline, *([_distribution(bins, section.metrics.get("step_time_ms"))] if bins else [])]


def _timeline(section: Section, series: Sequence[SeriesBlock]) -> Figure:
    steps = [*(block.first_step for block in series), series[-1].first_step + series[-1].count]
    phases = [key for key in series[-1].phases_ms if any((block.phases_ms.get(key) or 0) > 0 for block in series)]
    slowest_ms = [block.step_interval_ms for block in series]
    top_ms = _top_ms(section, slowest_ms)
    title = "Time of a step, by phase"
    return Figure(
        key="steps",
        title=title,
        description="What each step spent its time on, from the first step to the last."
        + (" Longer ones leave the chart; a double click shows them whole." if max(slowest_ms) > top_ms else ""),
        data=[
            *(_phase_area(key, steps, [block.phases_ms.get(key) for block in series]) for key in phases),
            _outline("slowest rank" if len(section.ranks) > 1 else "whole step", steps, slowest_ms),
        ],
        layout={
            "height": TIMELINE_PX,
            "xaxis": quiet_axis("step") | {"range": [steps[0], steps[-1]]},
            "yaxis": quiet_axis("milliseconds a step") | {"range": [0, top_ms]},
            "hovermode": "x unified",
            "legend": {"traceorder": "normal"},
            **_warm_up_mark([block for block in series if block.warmup]),
        },
        table=_timeline_table(title, series, phases),
    )


def _timeline_table(title: str, series: Sequence[SeriesBlock], phases: Sequence[str]) -> Table:
    return Table(
        caption=title,
        headings=["steps", "warm-up", "whole step", *(phase_label(key) for key in phases)],
        rows=[_table_row(block, phases) for block in series],
    )


def _table_row(block: SeriesBlock, phases: Sequence[str]) -> list[str]:
    last = block.first_step + block.count - 1
    steps = count(block.first_step) if block.count == 1 else f"{count(block.first_step)} to {count(last)}"
    times = [milliseconds(block.phases_ms.get(key)) for key in phases]
    return [steps, "yes" if block.warmup else "", milliseconds(block.step_interval_ms), *times]


def _top_ms(section: Section, slowest_ms: Sequence[float]) -> float:
    """Up to where the chart goes: rare long steps must not press all others flat."""
    usual = section.metrics.get("step_interval_ms")
    most = max(slowest_ms) * 1.05
    return most if usual is None else min(most, USUAL_TIMES * usual.p95)


def _phase_area(key: str, steps: list[int], values_ms: list[float | None]) -> dict[str, Any]:
    colour = f"--{key.replace('_', '-')}" if key.upper() in Phase.__members__ else "--unattributed"
    return _stairs(phase_label(key), steps, values_ms) | {
        "stackgroup": "phases",
        "line": {"width": 0, "shape": STAIRS, "color": colour},
        "fillcolor": colour,
    }


def _outline(name: str, steps: list[int], values_ms: list[float]) -> dict[str, Any]:
    return _stairs(name, steps, values_ms) | {"line": {"color": "--ink", "width": 1, "shape": STAIRS}}


def _stairs(name: str, steps: list[int], values_ms: Sequence[float | None]) -> dict[str, Any]:
    """A value for each block; the last one up to its end."""
    values = [*values_ms, values_ms[-1]]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plain(name),
        "x": steps,
        "y": values,
        "text": [milliseconds(value) for value in values],
        "hovertemplate": "%{fullData.name}: %{text}<extra></extra>",
    }


def _warm_up_mark(blocks: Sequence[SeriesBlock]) -> dict[str, Any]:
    """Warm-up shaded, and named once; a restart has a warm-up of its own."""
    stretches: list[list[int]] = []
    for block in blocks:
        if stretches and stretches[-1][1] == block.first_step:
            stretches[-1][1] += block.count
        else:
            stretches.append([block.first_step, block.first_step + block.count])
    shade = UPRIGHT | {"type": "rect", "fillcolor": "--shade", "line": {"color": "--muted", "width": 1, "dash": "dot"}}
    return {
        "shapes": [shade | {"x0": first, "x1": end} for first, end in stretches],
        "annotations": [marked_at(first, "warm-up", "left") for first, _ in stretches[:1]],
    }


def _distribution(bins: Sequence[HistogramBin], stat: Stat | None) -> Figure:
    title = "How long steps took"
    return Figure(
        key="distribution",
        title=title,
        description="How many steps took how long, after warm-up, without what lies around steps.",
        data=[_bars(bins)],
        layout={
            "xaxis": quiet_axis("milliseconds a step"),
            "yaxis": quiet_axis("steps"),
            "showlegend": False,
            "bargap": 0,
            **({} if stat is None else _quantile_marks(stat)),
        },
        table=Table(
            caption=title,
            headings=["longer than", "up to", "steps"],
            rows=[[milliseconds(one.from_ms), milliseconds(one.to_ms), count(one.count)] for one in bins],
        ),
    )


def _bars(bins: Sequence[HistogramBin]) -> dict[str, Any]:
    return {
        "type": "bar",
        "x": [one.from_ms for one in bins],
        "y": [one.count for one in bins],
        "width": [one.to_ms - one.from_ms for one in bins],
        "offset": 0,
        "text": [f"{milliseconds(one.from_ms)} to {milliseconds(one.to_ms)}" for one in bins],
        "textposition": "none",
        "hovertemplate": "%{text}: %{y} steps<extra></extra>",
        "marker": {"color": "--line-1", "line": {"width": 0}},
    }


def _quantile_marks(stat: Stat) -> dict[str, Any]:
    """Lines at the median and the 95th percentile, named to the side where the other is not."""
    marks = (("median", stat.median, "right"), ("p95", stat.p95, "left"))
    line = UPRIGHT | {"type": "line", "line": {"color": "--ink", "width": 1, "dash": "dot"}}
    return {
        "shapes": [line | {"x0": value, "x1": value} for _, value, _ in marks],
        "annotations": [marked_at(value, f"{name} {milliseconds(value)}", side) for name, value, side in marks],
    }
