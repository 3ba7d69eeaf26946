"""A run as tables of numpy columns: its rows as stored, what was rolled up of them, and the figures of its summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from traceml_core.diagnostics.model import Issue, Stat
from traceml_core.history.reader import HistoryReader
from traceml_core.reporting.summary import FinalSummary
from traceml_core.statistics.reduced import ReducedTable

Table = Mapping[str, np.ndarray]

ROLLUP = "_rollup"
# What a bucket holds of each column, and what is added to the column's name for it.
PARTS = {"count": "counts", "sum": "sums", "min": "minima", "max": "maxima"}
_ISSUE_COLUMNS = ("section", "kind", "severity", "impact_share", "summary", "action")


def stored_table_names(reader: HistoryReader) -> list[str]:
    """The tables of a history, those of the roll-ups after those of the rows."""
    names = reader.tables()
    return [*names, *(f"{name}{ROLLUP}" for name in names if reader.rolled(name) is not None)]


def stored_table(reader: HistoryReader, name: str) -> Table:
    """One of those tables.

    Of a long run the rows are the first and the last of each rank; a roll-up has a row a bucket of those between (the
    last of which are among the rows as well, `rolled_up`), and of each number how many were measured, sum, smallest
    and largest.
    """
    if name in reader.tables():
        return reader.marked_columns(name)
    rolled = reader.rolled(name.removesuffix(ROLLUP))
    return {} if rolled is None else _rollup_columns(rolled)


def _rollup_columns(rolled: ReducedTable) -> Table:
    """The buckets; where nothing was measured, sum and extremes are NaN."""
    columns = {"rank": rolled.rank, "incarnation": rolled.incarnation, "rows": rolled.rows, **rolled.texts}
    for name in rolled.sums:
        for suffix, part in PARTS.items():
            columns[f"{name}_{suffix}"] = getattr(rolled, part)[name]
    return columns


def metrics_table(summary: FinalSummary) -> Table:
    """Every metric of every section, a row each; what a metric does not have is NaN."""
    named = [(section, name, stat) for section, part in summary.sections.items() for name, stat in part.metrics.items()]
    numbers = {
        field: np.array([_number(getattr(stat, field)) for *_, stat in named], np.float64)
        for field in Stat.__struct_fields__
    }
    return {"section": _texts(one[0] for one in named), "metric": _texts(one[1] for one in named), **numbers}


def issues_table(summary: FinalSummary) -> Table:
    """The primary diagnosis, then every other issue, a row each."""
    others = [issue for section in summary.sections.values() for issue in section.issues]
    issues = [summary.primary_diagnosis, *(issue for issue in others if issue != summary.primary_diagnosis)]
    return {name: _issue_column(issues, name) for name in _ISSUE_COLUMNS}


def series_table(summary: FinalSummary) -> Table:
    """The blocks of steps that `compare` reads, a row each, with a column for each phase's mean."""
    section = summary.sections.get("step_time")
    blocks = section.series if section is not None and section.series is not None else []
    phases = dict.fromkeys(phase for block in blocks for phase in block.phases_ms)
    return {
        "first_step": np.array([block.first_step for block in blocks], np.int64),
        "count": np.array([block.count for block in blocks], np.int64),
        "warmup": np.array([block.warmup for block in blocks], bool),
        "step_interval_ms": np.array([block.step_interval_ms for block in blocks], np.float64),
        **{
            f"{phase}_ms": np.array([_number(block.phases_ms.get(phase)) for block in blocks], np.float64)
            for phase in phases
        },
    }


SUMMARY_TABLES: dict[str, Callable[[FinalSummary], Table]] = {
    "metrics": metrics_table,
    "issues": issues_table,
    "series": series_table,
}
"""The tables that come from the summary alone."""


def _issue_column(issues: list[Issue], name: str) -> np.ndarray:
    values = [getattr(issue, name) for issue in issues]
    return np.array([_number(value) for value in values]) if name == "impact_share" else _texts(values)


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _texts(values: Any) -> np.ndarray:
    return np.array(list(values), object)
