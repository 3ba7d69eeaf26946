"""The writer of a run's history: batches in, each exactly once, many to a transaction."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from traceml_core.core.identity import RankIdentity
from traceml_core.core.rows import Row
from traceml_core.history.bounded_rows import BoundedRows
from traceml_core.history.database import open_for_writing
from traceml_core.history.tables import create_tables, row_table
from traceml_core.loggers.error_log import get_error_logger, report_failure
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import Batch, Chunk, Finish, RunStatus

KEEP_ROWS = 10_000

_logger = get_error_logger("history")


class SequenceGapError(Exception):
    """A batch came without what goes before it; its rank will send both again."""


class _Source(msgspec.Struct):
    """One (rank, incarnation): its id, and the last batch that was written, committed or not."""

    id: int
    watermark: int


class HistoryWriter:
    """Writes one history file, from one thread.

    `write`, `describe` and `finish` join the open transaction, `commit` ends it, and only what `commit` has returned
    for may be acked. When anything fails on the way, the whole transaction is undone, watermarks too: nothing of it
    was acked, so the ranks send it again. A history that exists is continued. Of a long run's rows the first and the
    last `keep_rows` of each rank stay as they are; all are in the roll-ups, which are part of the same transactions.
    """

    def __init__(self, path: Path, row_types: Iterable[type[Row]], keep_rows: int = KEEP_ROWS) -> None:
        """Open the file and create what tables it lacks.

        Raises:
            sqlite3.Error: the file cannot be written, is no database, or is of a newer TraceML.
        """
        self._tables = {row_type.table: row_table(row_type) for row_type in row_types}
        self._connection = open_for_writing(path)
        self._bounded = BoundedRows(self._connection, self._tables, keep_rows)
        self._sources: dict[tuple[int, int], _Source] = {}
        try:
            create_tables(self._connection, self._tables.values())
            self._load_sources()
        except BaseException:
            self._connection.close()
            raise

    def hello(self, identity: RankIdentity, started_unix_ns: int) -> int:
        """Register a rank, at once, and return its watermark: the `seq` up to which its batches are committed.

        Raises:
            sqlite3.Error: the disk is full, or the like.
        """
        self.commit()
        key = (identity.rank, identity.incarnation)
        if key not in self._sources:
            names = ("rank", "incarnation", "local_rank", "world_size", "nodes", "host", "pid")
            values = [*(getattr(identity, name) for name in names), started_unix_ns, time.time_ns()]
            self._execute(
                f"INSERT INTO ranks ({', '.join(names)}, started_unix_ns, last_seen_unix_ns) "
                f"VALUES ({', '.join('?' * len(values))})",
                values,
            )
            self.commit()
            self._load_sources()
        return self._sources[key].watermark

    def write(self, batch: Batch) -> bool:
        """Write a batch's rows and move its rank's watermark; False where it was written before.

        A chunk that cannot be decoded, or belongs to no table, is left out and counted: sending it again is no use.

        Raises:
            SequenceGapError: a batch before this one is missing, or the hello.
            sqlite3.Error: the disk is full, or the like; everything since the last commit is undone.
        """
        source = self._sources.get((batch.rank, batch.incarnation))
        if source is None:
            raise SequenceGapError(f"rank {batch.rank} has not said hello")
        if batch.seq <= source.watermark:
            return False
        if batch.seq > source.watermark + 1:
            raise SequenceGapError(f"rank {batch.rank}: batch {batch.seq} came after {source.watermark}")
        received = sum(self._write_chunk(source.id, batch.seq, chunk) for chunk in batch.chunks)
        self._execute(
            "UPDATE ranks SET watermark = ?, elapsed_ns = ?, rows_received = rows_received + ?, rows_dropped = ?, "
            "failures = ?, last_seen_unix_ns = ? WHERE source = ?",
            (
                batch.seq,
                batch.elapsed_ns,
                received,
                batch.rows_dropped,
                json.dumps(batch.failures),
                time.time_ns(),
                source.id,
            ),
        )
        source.watermark = batch.seq
        return True

    def watermark(self, rank: int, incarnation: int) -> int:
        """The `seq` up to which this rank's batches are written; after `commit`, committed."""
        source = self._sources.get((rank, incarnation))
        return 0 if source is None else source.watermark

    def describe(self, rank: int, facts: RunFacts) -> None:
        """Keep the run's facts as this rank knows them; they replace what it told before."""
        self._execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (rank, msgspec.json.encode(facts).decode()))

    def finish(self, finish: Finish) -> None:
        """Keep how a rank ended; one that never said hello is none of ours."""
        source = self._sources.get((finish.rank, finish.incarnation))
        if source is None:
            return
        error = None if finish.error is None else msgspec.json.encode(finish.error).decode()
        self._execute(
            "UPDATE ranks SET status = ?, error = ?, wall_ns = ?, overhead_ns_per_step = ?, last_seen_unix_ns = ?, "
            "rows_dropped = coalesce(max(? - rows_received, 0), rows_dropped) WHERE source = ?",
            (
                finish.status,
                error,
                finish.wall_ns,
                finish.overhead_ns_per_step,
                time.time_ns(),
                finish.rows_made,
                source.id,
            ),
        )

    def statuses(self) -> list[tuple[int, int, RunStatus]]:
        """Rank, incarnation and status of everybody who has said hello so far, in that order."""
        return list(self._connection.execute("SELECT rank, incarnation, status FROM ranks ORDER BY source"))

    def failed(self, failures: Mapping[str, int]) -> None:
        """Add to what failed in the aggregator itself, by edge."""
        for edge, count in failures.items():
            self._execute(
                "INSERT INTO failures VALUES (?, ?) ON CONFLICT (edge) DO UPDATE SET count = count + excluded.count",
                (edge, count),
            )

    def commit(self) -> None:
        """End the open transaction; what was written is safe from here on.

        Raises:
            sqlite3.Error: it could not be; everything since the last commit is undone.
        """
        if self._connection.in_transaction:
            try:
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                self._undo()
                raise

    def close(self, *, synced: bool = True) -> None:
        """Commit, and leave one plain file that can be read from anywhere, read-only folders too.

        Without `synced` a power cut may damage it until somebody has the disk hold it: that is not waited for here.
        """
        try:
            self.commit()
            if not synced:
                self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.execute("PRAGMA busy_timeout = 500")
            self._connection.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:
            # A reader holds the file, or the disk is full: the WAL stays beside the file and is read with it.
            report_failure(_logger, "closing the history", error)
        finally:
            self._connection.close()

    def _write_chunk(self, source: int, seq: int, chunk: Chunk) -> int:
        """Insert a chunk's rows; how many were stored."""
        try:
            table = self._tables[chunk.table]
            rows = table.decode(chunk.rows)
        except (KeyError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            report_failure(_logger, f"decoding rows of {chunk.table}", error)
            return 0
        self._begin()
        try:
            cursor = self._connection.executemany(table.insert, [(source, seq, *row) for row in rows])
            stored = max(cursor.rowcount, 0)  # -1 where there were no rows
            self._bounded.added(source, table, rows, stored)
        except sqlite3.Error:
            self._undo()
            raise
        except Exception as error:
            # Rolling up must not cost rows: these come again, and stay as they are from now on.
            self._bounded.give_up()
            self._undo()
            raise sqlite3.InternalError(f"rolling up rows of {chunk.table} failed ({error!r})") from error
        if stored < len(rows):
            report_failure(
                _logger, f"storing rows of {chunk.table}", ValueError("a number that is none, in a column not null")
            )
        return stored

    def _execute(self, statement: str, values: Iterable[Any]) -> None:
        self._begin()
        try:
            self._connection.execute(statement, tuple(values))
        except sqlite3.Error:
            self._undo()
            raise

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._bounded.know()
            except sqlite3.Error:
                self._undo()
                raise

    def _undo(self) -> None:
        """Back to the last commit; a full disk has made SQLite do so by itself already."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._bounded.forget()
        self._load_sources()

    def _load_sources(self) -> None:
        rows = self._connection.execute("SELECT rank, incarnation, source, watermark FROM ranks")
        self._sources = {(rank, incarnation): _Source(id, mark) for rank, incarnation, id, mark in rows}
