"""A section's metrics as text tables: one row a metric, numbers in the unit that reads best.

Ranks are never listed: whatever their number, each metric says its worst rank, the median rank, and how far apart
they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from traceml_core.core.units import count, percent
from traceml_core.diagnostics.model import Stat
from traceml_core.reporting.summary import Section
from traceml_core.statistics.ranked import median_rank

NAME_COLUMNS = 22
NUMBER_COLUMNS = 11
Unit = Callable[[float | None], str]


def stat_table(section: Section, rows: Sequence[tuple[str, Unit]]) -> list[str]:
    """A heading and one line for each metric of `rows` that the section has; empty where it has none of them.

    With several ranks, a second table follows that holds the worst rank's mean against the median rank's.
    """
    known = [(name, unit, section.metrics[name]) for name, unit in rows if name in section.metrics]
    if not known:
        return []
    headings = ("mean", "median", "p95", "max", "of step")
    lines = [f"{'':{NAME_COLUMNS}}" + "".join(f"{heading:>{NUMBER_COLUMNS}}" for heading in headings)]
    lines += [_line(name, unit, stat) for name, unit, stat in known]
    return [line.rstrip() for line in (*lines, *_rank_table(section, known))]


def _rank_table(section: Section, known: Sequence[tuple[str, Unit, Stat]]) -> list[str]:
    apart = [(name, unit, stat) for name, unit, stat in known if stat.worst_rank is not None]
    if not apart:
        return []
    title = f"means of {count(len(section.ranks))} ranks"
    headings = ("worst", "of rank", "median", "spread")
    lines = ["", f"{title:{NAME_COLUMNS}}" + "".join(f"{heading:>{NUMBER_COLUMNS}}" for heading in headings)]
    for name, unit, stat in apart:
        means = [mean for mean in (rank.metrics.get(name) for rank in section.ranks) if mean is not None]
        worst, median = stat.worst_rank_mean or 0.0, median_rank(means)
        values = (unit(worst), str(stat.worst_rank), unit(median), unit(worst - median))
        lines.append(f"{name:{NAME_COLUMNS}}" + "".join(f"{value:>{NUMBER_COLUMNS}}" for value in values))
    return lines


def _line(name: str, unit: Unit, stat: Stat) -> str:
    values = [unit(value) for value in (stat.mean, stat.median, stat.p95, stat.max)]
    values.append("" if stat.share_of_step is None else percent(stat.share_of_step))
    return f"{name:{NAME_COLUMNS}}" + "".join(f"{value:>{NUMBER_COLUMNS}}" for value in values)
