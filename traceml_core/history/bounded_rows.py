"""Which rows of a table stay as they came: the first and the last of each source. Those between are rolled up."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from traceml_core.history.tables import RowTable

if TYPE_CHECKING:
    from traceml_core.history.rank_window import RankWindow

LARGEST_DETAIL = 1_024
SMALLEST_DETAIL = 64
# First rows and buckets of all ranks together, and kept rows of a table: what a report reads stays bounded at any size.
DETAIL_OF_ALL = LARGEST_DETAIL * 64
KEPT_OF_ALL = 500_000
# A chunk of so many rows is rolled up as it comes; smaller ones wait in their table until there are enough of them.
LARGE_CHUNK_ROWS = 256
# The newest rows are never rolled up: reports ask what the last step was like, and what was held last.
NEWEST_ROWS = 8


class _Chunk(msgspec.Struct, frozen=True, gc=False):
    """Consecutive rows of one source, by rowid."""

    first: int
    last: int
    rows: int


class _Stream(msgspec.Struct):
    """The rows of one source in one table. `waiting` are not rolled up yet, `rolled` are and may be deleted."""

    detail: int
    kept: int
    head_end: int = 0
    rolled_end: int = 0
    head_rows: int = 0
    rows: int = 0
    last_step: float | None = None
    passes: int = 0
    waiting: deque[_Chunk] = msgspec.field(default_factory=deque)
    waiting_rows: int = 0
    rolled: deque[_Chunk] = msgspec.field(default_factory=deque)
    rolled_rows: int = 0


class BoundedRows:
    """Watches what the writer inserts, rolls it up and deletes what is old, in the writer's own transaction.

    The first `detail` rows of a source stay, as do the last `keep_rows`; both are fewer where there are very many
    ranks. What is held here follows from the file: `forget` after a rollback, and it is read again.
    """

    def __init__(self, connection: sqlite3.Connection, tables: Mapping[str, RowTable], keep_rows: int) -> None:
        """Watch the tables behind `connection`."""
        self._connection = connection
        self._tables = tables
        self._keep_rows = keep_rows
        self._streams: dict[tuple[int, str], _Stream] = {}
        self._known = self._has_given_up = False
        self._window: RankWindow | None = None
        self._world_sizes: dict[int, int] = {}

    def forget(self) -> None:
        """A transaction was undone: what was known of the file is no longer true."""
        self._known = False
        if self._window is not None:
            self._window.forget()

    def give_up(self) -> None:
        """Something in here failed: leave rows as they are. A history that grows is better than one that stops."""
        self._has_given_up = True

    def know(self) -> None:
        """A transaction begins: see what is in the file, before anything is added."""
        if not self._known:
            self._streams.clear()
            self._world_sizes.clear()
            for table in self._tables:
                self._load(table)
            self._known = True

    def added(self, source: int, table: RowTable, rows: Sequence[tuple[Any, ...]], stored: int) -> None:
        """`stored` of these rows were just inserted."""
        if not stored or self._has_given_up:
            return
        stream = self._stream(source, table.name)
        last = self._connection.execute("SELECT last_insert_rowid()").fetchone()[0]
        chunk = _Chunk(last - stored + 1, last, stored)
        if stream.head_rows < stream.detail:
            stream.head_rows += stored
            stream.head_end = stream.rolled_end = last
            stream.rows = stream.head_rows
            return
        stream.waiting.append(chunk)
        stream.waiting_rows += stored
        if stored == len(rows) and stored >= LARGE_CHUNK_ROWS:
            self._roll_up(source, table, stream, [*self._read(table, list(stream.waiting)[:-1]), *rows])
        elif stream.waiting_rows >= max(stream.detail, LARGE_CHUNK_ROWS):
            self._roll_up(source, table, stream, self._read(table, stream.waiting))

    def _roll_up(self, source: int, table: RowTable, stream: _Stream, rows: Sequence[tuple[Any, ...]]) -> None:
        """Roll up what waits, which is `rows`, but for the newest of them."""
        from traceml_core.history.rollup import Reached, roll_up  # numpy comes with it, and no short run needs it

        chunks, newest = _split(stream.waiting)
        if not chunks:
            return
        rows = rows[: sum(chunk.rows for chunk in chunks)]
        reached = Reached(stream.rows, stream.last_step, stream.passes)
        reached, derived = roll_up(self._connection, source, table, rows, reached, stream.detail)
        stream.rows, stream.last_step, stream.passes = reached.rows, reached.last_step, reached.passes
        stream.rolled_end = chunks[-1].last
        stream.waiting = newest
        stream.waiting_rows = sum(chunk.rows for chunk in newest)
        stream.rolled.extend(chunks)
        stream.rolled_rows += len(rows)
        self._connection.execute(
            "INSERT OR REPLACE INTO rolled VALUES (?, ?, ?, ?, ?, ?, ?)",
            (source, table.name, stream.head_end, stream.rolled_end, stream.rows, stream.last_step, stream.passes),
        )
        unjoined = 0
        if table.name == "step_time" and self._world_sizes[source] > 1:
            unjoined = self._join(source, stream, derived, is_first=stream.rows == stream.head_rows + len(rows))
        self._delete_old(table, stream, max(stream.kept, unjoined))

    def _join(self, source: int, stream: _Stream, derived: Mapping[str, Any], *, is_first: bool) -> int:
        """Join these steps with other ranks'; how many of the source's rows wait for that."""
        from traceml_core.history.rank_window import RankWindow

        if self._window is None:
            self._window = RankWindow(self._connection, self._tables["step_time"])
        if is_first:
            self._window.begin(source, stream.detail)
        return self._window.add(source, derived)

    def _delete_old(self, table: RowTable, stream: _Stream, kept: int) -> None:
        old = []
        while stream.rolled and stream.rolled_rows - stream.rolled[0].rows >= kept:
            chunk = stream.rolled.popleft()
            stream.rolled_rows -= chunk.rows
            old.append((chunk.first, chunk.last))
        self._connection.executemany(f'DELETE FROM "{table.name}" WHERE rowid BETWEEN ? AND ?', old)

    def _read(self, table: RowTable, chunks: Iterable[_Chunk]) -> list[tuple[Any, ...]]:
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        query = f'SELECT {names} FROM "{table.name}" WHERE rowid BETWEEN ? AND ? ORDER BY rowid'
        return [row for chunk in chunks for row in self._connection.execute(query, (chunk.first, chunk.last))]

    def _stream(self, source: int, table: str) -> _Stream:
        key = (source, table)
        if key not in self._streams:
            self._streams[key] = self._new_stream(source)
        return self._streams[key]

    def _new_stream(self, source: int) -> _Stream:
        if source not in self._world_sizes:
            self._world_sizes = dict(self._connection.execute("SELECT source, world_size FROM ranks"))
        ranks = max(self._world_sizes.get(source, 1), 1)
        detail = min(LARGEST_DETAIL, max(SMALLEST_DETAIL, DETAIL_OF_ALL // ranks))
        return _Stream(detail=detail, kept=min(self._keep_rows, KEPT_OF_ALL // ranks))

    def _load(self, table: str) -> None:
        """Read how far the sources of a table have come."""
        rolled = self._connection.execute(
            "SELECT source, head_end, rolled_end, rows, last_step, pass FROM rolled WHERE tbl = ?", (table,)
        )
        for source, head_end, rolled_end, rows, last_step, passes in rolled.fetchall():
            stream = self._new_stream(source)
            stream.head_end, stream.rolled_end, stream.rows = head_end, rolled_end, rows
            stream.last_step, stream.passes, stream.head_rows = last_step, passes, stream.detail
            self._streams[source, table] = stream
        chunks = self._connection.execute(
            f'SELECT t.source, min(t.rowid), max(t.rowid), count(*) FROM "{table}" AS t '
            "LEFT JOIN rolled AS r ON r.source = t.source AND r.tbl = ? "
            "GROUP BY t.source, t.seq, t.rowid > r.head_end, t.rowid > r.rolled_end ORDER BY min(t.rowid)",
            (table,),
        )
        for source, first, last, rows in chunks.fetchall():
            stream = self._stream(source, table)
            if stream.head_rows < stream.detail:
                stream.head_rows += rows
                stream.head_end = stream.rolled_end = last
                stream.rows = stream.head_rows
            elif last > stream.rolled_end:
                stream.waiting.append(_Chunk(first, last, rows))
                stream.waiting_rows += rows
            elif first > stream.head_end:
                stream.rolled.append(_Chunk(first, last, rows))
                stream.rolled_rows += rows


def _split(waiting: Iterable[_Chunk]) -> tuple[list[_Chunk], deque[_Chunk]]:
    """What waits, without the newest rows, and those."""
    old, newest, missing = list(waiting), deque[_Chunk](), NEWEST_ROWS
    while old and missing:
        chunk = old.pop()
        taken = min(chunk.rows, missing)
        newest.appendleft(_Chunk(chunk.last - taken + 1, chunk.last, taken))
        if taken < chunk.rows:
            old.append(_Chunk(chunk.first, chunk.last - taken, chunk.rows - taken))
        missing -= taken
    return old, newest
