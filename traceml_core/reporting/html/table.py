"""Tables of a page: of numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from traceml_core.core.units import measured, percent
from traceml_core.reporting.summary import Section


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table of texts. The first cell of a row says what the row is about."""

    caption: str
    headings: list[str]
    rows: list[list[str]]


def metric_table(caption: str, section: Section) -> Table | None:
    """Every metric of a section that is not nothing throughout; null where it has none."""
    known = [(name, stat) for name, stat in section.metrics.items() if stat.max != 0]
    if not known:
        return None
    has_shares = any(stat.share_of_step is not None for _, stat in known)
    headings = ["metric", "mean", "median", "p95", "max", *(["share of a step"] if has_shares else [])]
    rows = []
    for name, stat in known:
        row = [name, *(measured(name, value) for value in (stat.mean, stat.median, stat.p95, stat.max))]
        shares = ["" if stat.share_of_step is None else percent(stat.share_of_step)] if has_shares else []
        rows.append(row + shares)
    return Table(caption=caption, headings=headings, rows=rows)


def rank_table(caption: str, section: Section, names: Sequence[str], labels: Sequence[str]) -> Table:
    """Each rank's mean of these metrics."""
    rows = [[f"rank {one.rank}", *(measured(name, one.metrics.get(name)) for name in names)] for one in section.ranks]
    return Table(caption=caption, headings=["", *labels], rows=rows)
