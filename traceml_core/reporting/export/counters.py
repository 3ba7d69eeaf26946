"""Tables of what was sampled, of whatever row type, as counters of a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from traceml_core.history.reader import Columns, HistoryReader
from traceml_core.reporting.export.step_slices import StepSlices
from traceml_core.reporting.export.trace_events import Counter, Event
from traceml_core.statistics.reduced import ReducedTable

Life = tuple[int, int]

# Whose row it is, where and when: no quantity.
_PLACES = frozenset(("rank", "incarnation", "seq", "at_ns", "step"))
_INDEX = "_index"
_CHUNK_ROWS = 5_000


def counter_events(
    reader: HistoryReader,
    table: str,
    pids: Mapping[Life, int],
    clocks: Mapping[Life, StepSlices],
    origin_ns: int,
) -> Iterator[Event]:
    """A table's numbers at their times: a column `at_ns`, or the end of the row's step. A table with neither has none.

    A bucket of the roll-up gives the mean of its rows, at the first of them, unless all of them are kept one by one.
    """
    columns = reader.columns(table)
    if not columns or not columns["rank"].size or not ({"at_ns", "step"} & set(columns)):
        return
    rolled = reader.rolled(table)
    yield from _events(table, columns, pids, clocks, origin_ns)
    if rolled is not None:
        buckets = _as_columns(rolled, columns)
        yield from _events(table, _without_kept(buckets, rolled, columns), pids, clocks, origin_ns)


def _events(
    table: str, columns: Columns, pids: Mapping[Life, int], clocks: Mapping[Life, StepSlices], origin_ns: int
) -> Iterator[Event]:
    at_ns = _times_ns(columns, clocks)
    labels = [name for name in columns if name.endswith(_INDEX)]
    labels = labels or [name for name, values in columns.items() if values.dtype == object]
    numbers = [
        name
        for name, values in columns.items()
        if name not in _PLACES and not name.endswith(_INDEX) and values.dtype != object
    ]
    for start in range(0, at_ns.size, _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        times = at_ns[part].tolist()
        owners = zip(columns["rank"][part].tolist(), columns["incarnation"][part].tolist(), strict=True)
        named = zip(*(columns[name][part].tolist() for name in labels), strict=True) if labels else [()] * len(times)
        values = zip(*(columns[name][part].tolist() for name in numbers), strict=True)
        for time_ns, owner, names, row in zip(times, owners, named, values, strict=True):
            known = {name: value for name, value in zip(numbers, row, strict=True) if value == value}  # NaN is not
            if known and time_ns == time_ns and owner in pids:
                title = " ".join([table, *(f"{name:.0f}" if isinstance(name, float) else f"{name}" for name in names)])
                yield Counter(name=title, pid=pids[owner], ts=(time_ns - origin_ns) / 1_000, args=known)


def _times_ns(columns: Columns, clocks: Mapping[Life, StepSlices]) -> np.ndarray:
    """When each row was made; NaN where nothing tells."""
    if "at_ns" in columns:
        return columns["at_ns"]
    times_ns = np.full(columns["rank"].size, np.nan)
    for (rank, incarnation), slices in clocks.items():
        mine = (columns["rank"] == rank) & (columns["incarnation"] == incarnation)
        known = np.flatnonzero(~np.isnan(slices.last_step))
        if known.size and mine.any():
            order = known[np.argsort(slices.last_step[known], kind="stable")]
            times_ns[mine] = np.interp(columns["step"][mine], slices.last_step[order], slices.ended_ns[order])
    return times_ns


def _as_columns(rolled: ReducedTable, like: Columns) -> Columns:
    """Buckets as rows: means, but for the moment, which is the first one."""
    return {
        name: rolled.minima[name]
        if name in ("at_ns", "step")
        else rolled.texts[name]
        if name in rolled.texts
        else getattr(rolled, name)
        if name in ("rank", "incarnation")
        else rolled.means(name)
        for name in like
        if name != "seq"
    }


def _without_kept(buckets: Columns, rolled: ReducedTable, kept: Columns) -> Columns:
    """Those of which not all rows are kept one by one."""
    place = "at_ns" if "at_ns" in kept else "step"
    keep = np.ones(rolled.size, bool)
    for rank in rolled.ranks:
        mine = np.flatnonzero(rolled.rank == rank)
        places = np.sort(kept[place][kept["rank"] == rank])
        first, last = rolled.minima[place][mine], rolled.maxima[place][mine]
        inside = np.searchsorted(places, last, side="right") - np.searchsorted(places, first, side="left")
        keep[mine] = inside < rolled.rows[mine]
    return {name: values[keep] for name, values in buckets.items()}
