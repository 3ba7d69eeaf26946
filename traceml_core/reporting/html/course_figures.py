"""The charts of what changes in the course of a run: memory over steps, and the load of host and GPUs over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from traceml_core.core.units import count, measured
from traceml_core.reporting.html.axes import byte_axis, quiet_axis
from traceml_core.reporting.html.figure import Figure
from traceml_core.reporting.html.table import Table
from traceml_core.reporting.summary import CoursePoint, FinalSummary

COLOURS = ("--line-1", "--line-2", "--line-3")
ALONG = {"step": "step", "at_s": "seconds since the first look"}


class CourseSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One chart: of which section, over what, and the name of each of its lines by metric."""

    key: str
    title: str
    description: str
    section: str
    axis: Literal["step", "at_s"]
    lines: dict[str, str]


MEMORY = (
    CourseSpec(
        key="process-memory",
        title="Memory of the processes",
        description="Resident memory over steps; of several ranks, the one that holds most.",
        section="process",
        axis="step",
        lines={"rss_bytes": "process", "workers_rss_bytes": "loader workers"},
    ),
    CourseSpec(
        key="device-memory",
        title="Memory on the device",
        description="The most that a step held in use, and reserved; of several ranks, the one that holds most.",
        section="step_memory",
        axis="step",
        lines={"peak_allocated_bytes": "in use", "peak_reserved_bytes": "reserved"},
    ),
)
HOST = (
    CourseSpec(
        key="load",
        title="Load",
        description="How busy the job's CPUs and GPUs were, on average.",
        section="system",
        axis="at_s",
        lines={"host_cpu_percent": "CPUs", "gpu_utilization_percent": "GPUs"},
    ),
    CourseSpec(
        key="host-memory",
        title="Memory",
        description="What the job held on its host, and what was in use on the fullest GPU.",
        section="system",
        axis="at_s",
        lines={"host_memory_bytes": "host", "gpu_memory_used_bytes": "GPU"},
    ),
)


def memory_figures(summary: FinalSummary) -> list[Figure]:
    """Memory of the processes and on the device."""
    return _figures(MEMORY, summary)


def host_figures(summary: FinalSummary) -> list[Figure]:
    """Load and memory of host and GPUs."""
    return _figures(HOST, summary)


def _figures(specs: Sequence[CourseSpec], summary: FinalSummary) -> list[Figure]:
    figures = []
    for spec in specs:
        section = summary.sections.get(spec.section)
        course = [] if section is None else section.course or []
        course = [point for point in course if getattr(point, spec.axis) is not None]
        shown = {name: label for name, label in spec.lines.items() if _is_worth_a_line(name, course)}
        if shown:
            figures.append(_figure(spec, course, shown))
    return figures


def _is_worth_a_line(name: str, course: Sequence[CoursePoint]) -> bool:
    """Measured at two points at least, and not nothing throughout."""
    values = [value for value in (point.metrics.get(name) for point in course) if value is not None]
    return len(values) > 1 and any(values)


def _figure(spec: CourseSpec, course: Sequence[CoursePoint], shown: dict[str, str]) -> Figure:
    along = ALONG[spec.axis]
    is_size = next(iter(shown)).endswith("_bytes")
    largest = max(point.metrics.get(name) or 0.0 for name in shown for point in course)
    y_axis = byte_axis(largest) if is_size else quiet_axis("per cent") | {"range": [0, 102]}
    return Figure(
        key=spec.key,
        title=spec.title,
        description=spec.description,
        data=[
            _line(name, label, colour, course, spec.axis)
            for (name, label), colour in zip(shown.items(), COLOURS, strict=False)
        ],
        layout={"xaxis": quiet_axis(along), "yaxis": y_axis, "hovermode": "x unified", "showlegend": True},
        table=Table(
            caption=spec.title,
            headings=[along, *shown.values()],
            rows=[
                [_place(point, spec.axis), *(measured(name, point.metrics.get(name)) for name in shown)]
                for point in course
            ],
        ),
    )


def _line(name: str, label: str, colour: str, course: Sequence[CoursePoint], axis: str) -> dict[str, Any]:
    values = [point.metrics.get(name) for point in course]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": label,
        "x": [getattr(point, axis) for point in course],
        "y": values,
        "text": [measured(name, value) for value in values],
        "hovertemplate": "%{fullData.name}: %{text}<extra></extra>",
        "line": {"color": colour, "width": 2},
        "connectgaps": True,
    }


def _place(point: CoursePoint, axis: str) -> str:
    return count(point.step) if axis == "step" else f"{point.at_s:.1f}"
