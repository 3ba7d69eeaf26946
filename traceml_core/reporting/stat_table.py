"""A section's metrics as a text table: one row a metric, numbers in the unit that reads best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from traceml_core.core.units import percent
from traceml_core.diagnostics.model import Stat
from traceml_core.reporting.summary import Section

NAME_COLUMNS = 22
NUMBER_COLUMNS = 11
Unit = Callable[[float | None], str]


def stat_table(section: Section, rows: Sequence[tuple[str, Unit]]) -> list[str]:
    """A heading and one line for each metric of `rows` that the section has; empty where it has none of them."""
    known = [(name, unit, section.metrics[name]) for name, unit in rows if name in section.metrics]
    if not known:
        return []
    headings = ("mean", "median", "p95", "max", "of step")
    lines = [f"{'':{NAME_COLUMNS}}" + "".join(f"{heading:>{NUMBER_COLUMNS}}" for heading in headings)]
    return [line.rstrip() for line in lines + [_line(name, unit, stat) for name, unit, stat in known]]


def _line(name: str, unit: Unit, stat: Stat) -> str:
    values = [unit(value) for value in (stat.mean, stat.median, stat.p95, stat.max)]
    values.append("" if stat.share_of_step is None else percent(stat.share_of_step))
    return f"{name:{NAME_COLUMNS}}" + "".join(f"{value:>{NUMBER_COLUMNS}}" for value in values)
