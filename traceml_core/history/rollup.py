"""Rolling up: rows of one table become buckets and sketches, which are merged pairwise where there are too many.

Everything here happens inside the writer's transaction. What is rolled up, and the mark up to which it is, are
committed together, and what is rolled up was inserted before: a killed writer loses nothing and counts nothing twice.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from traceml_core.history.arrays import array_of
from traceml_core.history.tables import RowTable
from traceml_core.statistics.buckets import Buckets, buckets_of, coarser, merge_buckets, span_that_fits
from traceml_core.statistics.derived import Arrays, derive
from traceml_core.statistics.sketch import Sketch, merge, sketches_of

BUCKETS_A_SEGMENT = 64
"""So many buckets share a sketch: quantiles need less detail over time than means do."""

LARGEST_PASSES = 16
LARGEST_TEXTS = 64
OTHER = "(other)"

# Where a row lies, not what was measured: its quantiles mean nothing.
_PLACES = frozenset(("step", "first_step", "last_step", "at_ns", "started_ns", "ended_ns"))

# Beyond this, a float no longer tells neighbouring steps apart.
_FARTHEST = 2**52

_decode_sketches = msgspec.msgpack.Decoder(dict[str, Sketch]).decode


class Reached(msgspec.Struct, frozen=True):
    """How far the rows of one source and table have come: how many there were, the last step, the pass over steps."""

    rows: int = 0
    last_step: float | None = None
    passes: int = 0


class _Series(msgspec.Struct, frozen=True):
    """Rows that are rolled up together: their key, their positions and numbers (rows, columns)."""

    outside: bool
    passes: int
    texts: tuple[str | None, ...]
    positions: np.ndarray
    numbers: np.ndarray


def roll_up(
    connection: sqlite3.Connection,
    source: int,
    table: RowTable,
    rows: Sequence[tuple[Any, ...]],
    reached: Reached,
    largest_count: int,
) -> tuple[Reached, Arrays]:
    """Add rows, which follow on those that were `reached`, to the roll-ups; a series has `largest_count` buckets.

    Gives how far they reach, and their columns of numbers with what follows from them.
    """
    texts, numbers = columns_of_rows(table, rows)
    steps, passes, reached = _passes(numbers, len(rows), reached)
    derived = derive(table.name, numbers)
    names = tuple(derived)
    matrix = np.stack([np.asarray(values, np.float64) for values in derived.values()], axis=1)
    for one in _series(texts, matrix, steps, passes, reached):
        _add(connection, (source, table.name), one, names, largest_count)
    return reached, derived


def columns_of_rows(
    table: RowTable, rows: Sequence[tuple[Any, ...]]
) -> tuple[list[tuple[Any, ...]], dict[str, np.ndarray]]:
    """The columns of text, and those of numbers by name (NaN where null)."""
    columns = list(zip(table.columns, zip(*rows, strict=True), strict=True))
    texts = [values for column, values in columns if column.kind is str]
    numbers = {column.name: array_of(values, np.float64) for column, values in columns if column.kind is not str}
    return texts, numbers


def _passes(
    numbers: Mapping[str, np.ndarray], count: int, reached: Reached
) -> tuple[np.ndarray | None, np.ndarray, Reached]:
    """Steps (null where a row is not a step), and the pass of each row: steps that come again begin another one."""
    passes = np.full(count, reached.passes)
    rows = reached.rows + count
    if "step" not in numbers or "at_ns" in numbers:
        return None, passes, Reached(rows, None, reached.passes)
    steps = numbers["step"]
    known = np.flatnonzero(~np.isnan(steps))
    if known.size == 0:
        return steps, passes, Reached(rows, reached.last_step, reached.passes)
    before = np.concatenate([[-np.inf if reached.last_step is None else reached.last_step], steps[known][:-1]])
    again = np.zeros(count, np.int64)
    again[known] = steps[known] <= before
    passes = np.minimum(passes + np.cumsum(again), LARGEST_PASSES - 1)
    return steps, passes, Reached(rows, float(steps[known[-1]]), int(passes[-1]))


def _series(
    texts: list[tuple[Any, ...]], matrix: np.ndarray, steps: np.ndarray | None, passes: np.ndarray, reached: Reached
) -> list[_Series]:
    """The rows by series. Rows of steps lie at their step, others at their number among all rows."""
    count = matrix.shape[0]
    ordinals = np.arange(reached.rows - count, reached.rows)
    outside = np.isnan(steps) if steps is not None else np.zeros(count, bool)
    positions = ordinals if steps is None else np.where(outside, ordinals, np.nan_to_num(steps) - 1)
    positions = np.clip(positions, -_FARTHEST, _FARTHEST).astype(np.int64)
    if not texts and not outside.any() and passes[0] == passes[-1]:
        return [_Series(False, int(passes[0]), (), positions, matrix)]
    keys = list(zip(outside.tolist(), passes.tolist(), *texts, strict=True))
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return [
        _Series(key[0], key[1], key[2:], positions[mine], matrix[mine])
        for key, mine in ((key, np.array(mine)) for key, mine in places.items())
    ]


def _add(
    connection: sqlite3.Connection, owner: tuple[int, str], new: _Series, names: tuple[str, ...], largest_count: int
) -> None:
    number, span = _find(connection, owner, new, names)
    bounds = connection.execute(
        "SELECT min(bucket), max(bucket) FROM rollup_buckets WHERE series = ?", (number,)
    ).fetchone()
    first, last = int(new.positions.min()), int(new.positions.max())
    if bounds[0] is not None:
        first, last = min(first, bounds[0] * span), max(last, bounds[1] * span)
    fitting = span_that_fits(first, last, span, largest_count)
    if fitting != span:
        _coarsen(connection, number, fitting // span, len(names))
        connection.execute("UPDATE rollup_series SET span = ? WHERE series = ?", (fitting, number))
    keys = new.positions // fitting
    fresh = buckets_of(keys, new.numbers)
    stored = _read_buckets(connection, number, fresh.keys, len(names))
    _write_buckets(connection, number, fresh if stored is None else merge_buckets(stored, fresh))
    _sketch(connection, number, keys // BUCKETS_A_SEGMENT, new.numbers, names)


def _find(
    connection: sqlite3.Connection, owner: tuple[int, str], new: _Series, names: tuple[str, ...]
) -> tuple[int, int]:
    """The series' number and span. Past `LARGEST_TEXTS` different texts, further ones share one series."""
    texts = new.texts
    for attempt in (texts, tuple(OTHER for _ in texts)):
        key = (*owner, new.outside, new.passes, json.dumps(attempt))
        found = connection.execute(
            "SELECT series, span FROM rollup_series "
            "WHERE source = ? AND tbl = ? AND outside = ? AND pass = ? AND texts = ?",
            key,
        ).fetchone()
        if found is not None:
            return int(found[0]), int(found[1])
        others = connection.execute("SELECT count(*) FROM rollup_series WHERE source = ? AND tbl = ?", owner)
        if not texts or others.fetchone()[0] < LARGEST_TEXTS or attempt is not texts:
            break
    cursor = connection.execute(
        "INSERT INTO rollup_series (source, tbl, outside, pass, texts, columns, span) VALUES (?, ?, ?, ?, ?, ?, 1)",
        (*key, json.dumps(names)),
    )
    return int(cursor.lastrowid or 0), 1


def _coarsen(connection: sqlite3.Connection, series: int, times: int, columns: int) -> None:
    """Merge the stored buckets of a series, and its sketches, with their neighbours."""
    buckets = _read_buckets(connection, series, None, columns)
    if buckets is not None:
        connection.execute("DELETE FROM rollup_buckets WHERE series = ?", (series,))
        _write_buckets(connection, series, coarser(buckets, times))
    segments: dict[int, list[dict[str, Sketch]]] = {}
    for segment, blob in connection.execute(
        "SELECT segment, sketches FROM rollup_sketches WHERE series = ?", (series,)
    ):
        segments.setdefault(segment // times, []).append(_decode_sketches(blob))
    connection.execute("DELETE FROM rollup_sketches WHERE series = ?", (series,))
    for segment, parts in segments.items():
        names = dict.fromkeys(name for part in parts for name in part)
        _write_sketches(
            connection, series, segment, {name: merge(part[name] for part in parts if name in part) for name in names}
        )


def _read_buckets(connection: sqlite3.Connection, series: int, keys: np.ndarray | None, columns: int) -> Buckets | None:
    """The stored buckets from the first to the last of `keys`, or all; null where there are none."""
    bounds = (-(2**62), 2**62) if keys is None else (int(keys[0]), int(keys[-1]))
    rows = connection.execute(
        "SELECT bucket, rows, numbers FROM rollup_buckets WHERE series = ? AND bucket BETWEEN ? AND ? ORDER BY bucket",
        (series, *bounds),
    ).fetchall()
    return buckets_from(rows, columns) if rows else None


def buckets_from(rows: Sequence[tuple[int, int, bytes]], columns: int) -> Buckets:
    """Buckets as they are stored, at least one of them."""
    keys, counts, blobs = zip(*rows, strict=True)
    numbers = np.frombuffer(b"".join(blobs), np.float64).reshape(len(rows), 4, columns)
    return Buckets(
        keys=np.array(keys, np.int64),
        rows=np.array(counts, np.int64),
        counts=numbers[:, 0],
        sums=numbers[:, 1],
        minima=numbers[:, 2],
        maxima=numbers[:, 3],
    )


def _write_buckets(connection: sqlite3.Connection, series: int, buckets: Buckets) -> None:
    numbers = np.stack([buckets.counts, buckets.sums, buckets.minima, buckets.maxima], axis=1)
    connection.executemany(
        "INSERT OR REPLACE INTO rollup_buckets VALUES (?, ?, ?, ?)",
        [
            (series, key, rows, blob.tobytes())
            for key, rows, blob in zip(buckets.keys.tolist(), buckets.rows.tolist(), numbers, strict=True)
        ],
    )


def _sketch(
    connection: sqlite3.Connection, series: int, segments: np.ndarray, numbers: np.ndarray, names: tuple[str, ...]
) -> None:
    measured = [place for place, name in enumerate(names) if name not in _PLACES]
    for segment in np.unique(segments).tolist():
        fresh = sketches_of(numbers[segments == segment][:, measured])
        known = {names[place]: sketch for place, sketch in zip(measured, fresh, strict=True) if sketch.count}
        row = connection.execute(
            "SELECT sketches FROM rollup_sketches WHERE series = ? AND segment = ?", (series, segment)
        ).fetchone()
        stored = {} if row is None else _decode_sketches(row[0])
        merged = {name: merge([stored[name], sketch]) if name in stored else sketch for name, sketch in known.items()}
        _write_sketches(connection, series, segment, {**stored, **merged})


def _write_sketches(connection: sqlite3.Connection, series: int, segment: int, sketches: Mapping[str, Sketch]) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO rollup_sketches VALUES (?, ?, ?)", (series, segment, msgspec.msgpack.encode(sketches))
    )
