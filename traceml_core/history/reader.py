"""Reads a run's history into numpy columns; the file may be in use by the aggregator."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from traceml_core.core.identity import RankIdentity
from traceml_core.history.tables import SCHEMA_VERSION
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import RunError, RunStatus

Columns = Mapping[str, np.ndarray[Any, Any]]


class HistoryUnreadableError(Exception):
    """The history cannot be read; the message says why, and what to do."""


class RankRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One start of one rank. `wall_ns` and `status` are null until it has said how it ended."""

    identity: RankIdentity
    started_unix_ns: int
    last_seen_unix_ns: int
    elapsed_ns: int
    rows_received: int
    rows_dropped: int
    failures: dict[str, int]
    status: RunStatus | None
    error: RunError | None
    wall_ns: int | None
    overhead_ns_per_step: float | None


class HistoryReader:
    """A read-only view of one history file."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            HistoryUnreadableError: it is missing, damaged, foreign, or of another schema version.
        """
        self._path = path
        if not path.exists():
            raise HistoryUnreadableError(
                f"{path} does not exist; the run recorded nothing, or its folder was moved apart"
            )
        try:
            self._connection = _connect(path)
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as error:
            raise HistoryUnreadableError(
                f"{path} cannot be read as a history ({error}); it is damaged or foreign"
            ) from error
        if version != SCHEMA_VERSION:
            self._connection.close()
            raise HistoryUnreadableError(
                f"{path} has schema version {version}, this TraceML reads {SCHEMA_VERSION}; use the release that wrote it"
            )

    def __enter__(self) -> HistoryReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def columns(self, table: str, names: Sequence[str] | None = None) -> Columns:
        """The columns of a table, in order of arrival; all of them, or those in `names`. A missing table has none.

        Whole numbers that are always there come as int64, numbers that may be missing as float64 with NaN, text as
        objects.

        Raises:
            HistoryUnreadableError: the file is damaged.
        """
        try:
            described = {
                name: (kind, bool(required))
                for _, name, kind, required, *_ in self._connection.execute(f"PRAGMA table_info('{table}')")
            }
            wanted = [name for name in (described if names is None else names) if name in described]
            if not wanted:
                return {}
            quoted = ", ".join(f'"{name}"' for name in wanted)
            rows = self._connection.execute(f'SELECT {quoted} FROM "{table}" ORDER BY rowid').fetchall()
        except sqlite3.Error as error:
            raise HistoryUnreadableError(f"{self._path}, table {table}: {error}") from error
        values = zip(*rows, strict=True) if rows else ((),) * len(wanted)
        return {name: _array(column, *described[name]) for name, column in zip(wanted, values, strict=True)}

    def ranks(self) -> list[RankRecord]:
        """Every start of every rank, in order of rank and start.

        Raises:
            HistoryUnreadableError: the file is damaged.
        """
        query = (
            "SELECT identity, started_unix_ns, last_seen_unix_ns, elapsed_ns, rows_received, rows_dropped, failures,"
            " status, error, wall_ns, overhead_ns_per_step FROM ranks ORDER BY rank, started_unix_ns"
        )
        try:
            return [_rank_record(*row) for row in self._connection.execute(query)]
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise HistoryUnreadableError(f"{self._path}, table ranks: {error}") from error

    def facts(self) -> RunFacts | None:
        """The facts of the run, once they were told.

        Raises:
            HistoryUnreadableError: the file is damaged.
        """
        try:
            row = self._connection.execute("SELECT facts FROM facts").fetchone()
            return None if row is None else msgspec.json.decode(row[0], type=RunFacts)
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise HistoryUnreadableError(f"{self._path}, table facts: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    """Open for reading; a folder that cannot be written hides the write-ahead log, and what is in the file is shown."""
    uri = path.absolute().as_uri()
    connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=5)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection
    except sqlite3.OperationalError:
        connection.close()
        connection = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection


def _array(values: Sequence[Any], kind: str, required: bool) -> np.ndarray[Any, Any]:
    if kind == "TEXT":
        return np.array(values, dtype=object)
    if kind == "INTEGER" and required:
        return np.array(values, dtype=np.int64)
    return np.array(values, dtype=np.float64)


def _rank_record(
    identity: str,
    started_unix_ns: int,
    last_seen_unix_ns: int,
    elapsed_ns: int,
    rows_received: int,
    rows_dropped: int,
    failures: str,
    status: RunStatus | None,
    error: str | None,
    wall_ns: int | None,
    overhead_ns_per_step: float | None,
) -> RankRecord:
    return RankRecord(
        identity=msgspec.json.decode(identity, type=RankIdentity),
        started_unix_ns=started_unix_ns,
        last_seen_unix_ns=last_seen_unix_ns,
        elapsed_ns=elapsed_ns,
        rows_received=rows_received,
        rows_dropped=rows_dropped,
        failures=msgspec.json.decode(failures, type=dict[str, int]),
        status=status,
        error=None if error is None else msgspec.json.decode(error, type=RunError),
        wall_ns=wall_ns,
        overhead_ns_per_step=overhead_ns_per_step,
    )
