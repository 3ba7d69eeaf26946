"""The one writer of a run's history: batches in, each exactly once, with its watermark in the same transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from traceml_core.core.identity import RankIdentity
from traceml_core.core.rows import Row
from traceml_core.history.file_system import is_network_file_system
from traceml_core.history.tables import FACTS_DDL, RANKS_DDL, SCHEMA_VERSION, row_tables
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import Batch, Finish


class BatchRefusedError(Exception):
    """A batch that can never be stored: its rows are malformed, or a batch before it is missing."""


class HistoryWriter:
    """Writes rows of the given types into one SQLite file, which may hold an earlier aggregator's part of the same run.

    Nothing is durable before `commit`. With WAL and `synchronous=NORMAL` a commit survives a kill of the process at any
    moment; only a crash of the machine may cost the last ones.
    """

    def __init__(self, path: Path, row_types: Iterable[type[Row]]) -> None:
        """Open or make the file.

        Raises:
            sqlite3.Error: the file cannot be written or is no database.
        """
        self._tables = row_tables(row_types)
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=5)
        journal = "DELETE" if is_network_file_system(path.parent) else "WAL"
        self._connection.execute(f"PRAGMA journal_mode={journal}")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("BEGIN IMMEDIATE")
        for statement in (RANKS_DDL, FACTS_DDL, *(table.create for table in self._tables.values())):
            self._connection.execute(statement)
        self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        self._connection.execute("COMMIT")
        self._watermarks: dict[tuple[int, int], int] = {
            (rank, incarnation): watermark
            for rank, incarnation, watermark in self._connection.execute(
                "SELECT rank, incarnation, watermark FROM ranks"
            )
        }

    def hello(self, identity: RankIdentity, started_unix_ns: int) -> int:
        """Register a rank; the seq of its last stored batch."""
        self._begin()
        self._connection.execute(
            "INSERT INTO ranks (rank, incarnation, identity, started_unix_ns, last_seen_unix_ns) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (
                identity.rank,
                identity.incarnation,
                msgspec.json.encode(identity).decode(),
                started_unix_ns,
                time.time_ns(),
            ),
        )
        return self._watermarks.setdefault((identity.rank, identity.incarnation), 0)

    def write(self, batch: Batch) -> bool:
        """Store a batch; False where it is stored already.

        Raises:
            BatchRefusedError: a batch before it is missing, or its rows cannot be read. Nothing of it is stored.
            sqlite3.Error: the rows cannot be written now (a full disk): `rollback`, and try again later.
        """
        sender = (batch.rank, batch.incarnation)
        watermark = self._watermarks.get(sender, 0)
        if batch.seq <= watermark:
            return False
        if batch.seq != watermark + 1:
            raise BatchRefusedError(f"batch {batch.seq} came after {watermark}")
        stored = [(self._tables.get(chunk.table), chunk) for chunk in batch.chunks]
        try:
            decoded = [(table, table.decode_rows.decode(chunk.rows)) for table, chunk in stored if table is not None]
        except msgspec.MsgspecError as error:
            raise BatchRefusedError(f"rows cannot be read: {error}") from error
        self._begin()
        prefix = (*sender, batch.seq)
        count = 0
        for table, rows in decoded:
            self._connection.executemany(table.insert, [prefix + msgspec.structs.astuple(row) for row in rows])
            count += len(rows)
        self._connection.execute(
            "UPDATE ranks SET watermark = ?, elapsed_ns = ?, rows_received = rows_received + ?, rows_dropped = ?,"
            " failures = ?, last_seen_unix_ns = ? WHERE rank = ? AND incarnation = ?",
            (
                batch.seq,
                batch.elapsed_ns,
                count,
                batch.rows_dropped,
                msgspec.json.encode(batch.failures).decode(),
                time.time_ns(),
                *sender,
            ),
        )
        self._watermarks[sender] = batch.seq
        return True

    def describe(self, facts: RunFacts) -> None:
        """Store the facts of the run; the newest count."""
        self._begin()
        text = msgspec.json.encode(facts).decode()
        self._connection.execute("INSERT OR REPLACE INTO facts (id, facts) VALUES (1, ?)", (text,))

    def finish(self, finish: Finish) -> None:
        """Store how a rank ended."""
        self._begin()
        error = None if finish.error is None else msgspec.json.encode(finish.error).decode()
        self._connection.execute(
            "UPDATE ranks SET status = ?, error = ?, wall_ns = ?, overhead_ns_per_step = ?, last_seen_unix_ns = ?"
            " WHERE rank = ? AND incarnation = ?",
            (
                finish.status,
                error,
                finish.wall_ns,
                finish.overhead_ns_per_step,
                time.time_ns(),
                finish.rank,
                finish.incarnation,
            ),
        )

    def commit(self) -> None:
        """Make everything since the last commit durable.

        Raises:
            sqlite3.Error: it could not be; `rollback`.
        """
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo everything since the last commit, watermarks included."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._watermarks = {
            (rank, incarnation): watermark
            for rank, incarnation, watermark in self._connection.execute(
                "SELECT rank, incarnation, watermark FROM ranks"
            )
        }

    def close(self) -> None:
        """Commit, fold the write-ahead log into the file, close."""
        try:
            self.commit()
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._connection.close()

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
