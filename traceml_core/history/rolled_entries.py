"""What was rolled up of a table, read back as entries of a reduced table."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

import msgspec
import numpy as np

from traceml_core.history.rollup import BUCKETS_A_SEGMENT, buckets_from
from traceml_core.statistics.buckets import Buckets
from traceml_core.statistics.reduced import ReducedTable
from traceml_core.statistics.sketch import Sketch

# Of a table `t`: the rows that are in no roll-up. Its one parameter is the table's name.
NOT_ROLLED = """
    LEFT JOIN rolled AS r ON r.source = t.source AND r.tbl = ?
    WHERE r.source IS NULL OR t.rowid <= r.head_end OR t.rowid > r.rolled_end
"""

_decode_sketches = msgspec.msgpack.Decoder(dict[str, Sketch]).decode


class RolledEntries(msgspec.Struct, frozen=True):
    """Rolled-up rows; `source` and `after_rowid` say whose they are and which row they come after, for each entry."""

    entries: ReducedTable
    source: np.ndarray
    after_rowid: np.ndarray


class _Series(msgspec.Struct, frozen=True):
    """The buckets of one series, the number of each one's sketch, and the texts that all its rows share."""

    source: int
    after_rowid: float
    texts: tuple[str | None, ...]
    names: tuple[str, ...]
    buckets: Buckets
    segment: np.ndarray


def read_rolled(connection: sqlite3.Connection, table: str, text_names: Sequence[str]) -> RolledEntries | None:
    """All that was rolled up of a table; null where nothing was. Ranks and incarnations are left to the caller."""
    sketches: list[dict[str, Sketch]] = []
    found = []
    rows = connection.execute(
        "SELECT s.series, s.source, r.head_end, s.texts, s.columns FROM rollup_series AS s "
        "JOIN rolled AS r ON r.source = s.source AND r.tbl = s.tbl WHERE s.tbl = ? ORDER BY s.source, s.pass, s.series",
        (table,),
    )
    for series, source, head_end, texts, columns in rows.fetchall():
        names = tuple(json.loads(columns))
        buckets = _buckets(connection, series, len(names))
        if buckets is not None:
            segment = _segments(connection, series, buckets.keys, sketches)
            found.append(_Series(source, head_end + 0.5, tuple(json.loads(texts)), names, buckets, segment))
    return _entries(found, text_names, sketches) if found else None


def _buckets(connection: sqlite3.Connection, series: int, columns: int) -> Buckets | None:
    rows = connection.execute(
        "SELECT bucket, rows, numbers FROM rollup_buckets WHERE series = ? ORDER BY bucket", (series,)
    ).fetchall()
    return buckets_from(rows, columns) if rows else None


def _segments(
    connection: sqlite3.Connection, series: int, keys: np.ndarray, sketches: list[dict[str, Sketch]]
) -> np.ndarray:
    """The place in `sketches`, to which those of this series are added, of each bucket's sketch."""
    places = {}
    for segment, blob in connection.execute(
        "SELECT segment, sketches FROM rollup_sketches WHERE series = ?", (series,)
    ):
        places[segment] = len(sketches)
        sketches.append(_decode_sketches(blob))
    return np.array([places[key] for key in (keys // BUCKETS_A_SEGMENT).tolist()], np.int64)


def _entries(found: list[_Series], text_names: Sequence[str], sketches: list[dict[str, Sketch]]) -> RolledEntries:
    sizes = [one.buckets.keys.size for one in found]
    source = np.repeat([one.source for one in found], sizes)
    names = [name for name in found[0].names if all(name in one.names for one in found)]
    places = [[one.names.index(name) for name in names] for one in found]

    def columns(of: str) -> np.ndarray:
        return np.concatenate([getattr(one.buckets, of)[:, at] for one, at in zip(found, places, strict=True)])

    counts = columns("counts")
    known = counts > 0
    numbers = {of: np.where(known, columns(of), np.nan) for of in ("sums", "minima", "maxima")} | {"counts": counts}
    texts = {
        name: np.repeat(np.array([one.texts[place] for one in found], object), sizes)
        for place, name in enumerate(text_names)
    }
    entries = ReducedTable(
        rank=source,
        incarnation=source,
        rows=np.concatenate([one.buckets.rows for one in found]),
        texts=texts,
        **{of: {name: values[:, place] for place, name in enumerate(names)} for of, values in numbers.items()},
        segment=np.concatenate([one.segment for one in found]),
        sketches=sketches,
    )
    return RolledEntries(entries, source, np.repeat([one.after_rowid for one in found], sizes))
