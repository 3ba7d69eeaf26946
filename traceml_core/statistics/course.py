"""Numbers in the course of a run: many entries of a table, reduced to a bounded number of points."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from traceml_core.statistics.reduced import ReducedTable


class Course(msgspec.Struct, frozen=True):
    """Points along an axis. `at` is the middle of each, ascending; `values` has NaN where a point has none."""

    at: np.ndarray
    values: dict[str, np.ndarray]


def course_of(tables: Sequence[tuple[ReducedTable | None, Sequence[str]]], axis: str, points: int) -> Course | None:
    """Columns of tables over one column that they share, in at most `points` equal stretches of it.

    A point holds the mean of all rows in its stretch, of all ranks alike; of sizes (`…_bytes`) the highest, since they
    are what runs out. A column of several tables is that of the first which has rows there.
    Null where no table has rows.
    """
    known = [(table, names) for table, names in tables if table is not None and table.size and axis in table.minima]
    if not known:
        return None
    begin = min(float(np.nanmin(table.minima[axis])) for table, _ in known)
    end = max(float(np.nanmax(table.maxima[axis])) for table, _ in known)
    width = max((end - begin) / points, 1.0)
    values: dict[str, np.ndarray] = {}
    for table, names in known:
        cell = np.clip((table.means(axis) - begin) // width, 0, points - 1)
        for name in names:
            if name in table.counts and table.counts[name].any():
                reduce = _highest if name.endswith("_bytes") else _means
                known_so_far = values.get(name, np.full(points, np.nan))
                values[name] = np.where(np.isnan(known_so_far), reduce(table, name, cell, points), known_so_far)
    filled = np.zeros(points, bool)
    for one in values.values():
        filled |= ~np.isnan(one)
    at = begin + (np.arange(points) + 0.5) * width
    return Course(at[filled], {name: one[filled] for name, one in values.items()})


def _means(table: ReducedTable, name: str, cell: np.ndarray, points: int) -> np.ndarray:
    measured = table.counts[name] > 0
    places = cell[measured].astype(np.int64)
    counts = np.bincount(places, table.counts[name][measured], points)
    sums = np.bincount(places, table.sums[name][measured], points)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _highest(table: ReducedTable, name: str, cell: np.ndarray, points: int) -> np.ndarray:
    measured = np.flatnonzero(table.counts[name] > 0)
    measured = measured[np.argsort(cell[measured], kind="stable")]
    places = cell[measured].astype(np.int64)
    starts = np.flatnonzero(np.concatenate([[True], np.diff(places) != 0]))
    highest = np.full(points, np.nan)
    highest[places[starts]] = np.maximum.reduceat(table.maxima[name][measured], starts)
    return highest
