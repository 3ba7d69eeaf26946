"""The reader of a run's history: its rows, its tables reduced, and what is known of ranks and run. Read-only."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np

from traceml_core.history.arrays import array_of
from traceml_core.history.database import GARBLED, HistoryUnreadableError, open_for_reading, unreadable
from traceml_core.history.joined_steps import JoinedSteps, joined_with
from traceml_core.history.rank_window import read_join
from traceml_core.history.rolled_entries import NOT_ROLLED, RolledEntries, read_rolled
from traceml_core.history.tables import OWN_TABLES
from traceml_core.statistics.reduced import ReducedTable, interleave, reduced
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import RunError, RunStatus

__all__ = ["Columns", "HistoryReader", "HistoryUnreadableError", "RankRecord"]

Columns = Mapping[str, np.ndarray]

_CHUNK_ROWS = 2_000
# Columns that history adds to every row, and where they come from.
_KEYS = {"rank": "source", "incarnation": "source", "seq": "seq"}


class RankRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One incarnation of one rank: who it was, how far it came, how it ended.

    `elapsed_ns` is its run time so far on its own clock, `wall_ns` the whole of it, null until it has finished;
    `status` is 'running' until then. `failures` counts what failed in that rank's telemetry, by edge.
    """

    rank: int
    incarnation: int
    local_rank: int
    world_size: int
    nodes: int
    host: str
    pid: int
    started_unix_ns: int
    last_seen_unix_ns: int
    elapsed_ns: int
    wall_ns: int | None
    status: RunStatus
    error: RunError | None
    rows_received: int
    rows_dropped: int
    failures: dict[str, int]
    overhead_ns_per_step: float | None


class HistoryReader:
    """Reads one history file, which may be written at the same moment by another process.

    Usable as a context manager. Every method raises `HistoryUnreadableError` where the file turns out to be damaged.
    """

    def __init__(self, path: Path | str) -> None:
        """Open the file.

        Raises:
            HistoryUnreadableError: it is missing, damaged, no history, or one of a newer TraceML.
        """
        self._path = Path(path)
        self._connection = open_for_reading(self._path)

    def __enter__(self) -> HistoryReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def columns(self, table: str, names: Sequence[str] | None = None) -> Columns:
        """Columns of a row table, all of them or those named, as arrays of one length, in the order of arrival.

        Of a long run only the first and the last rows of each rank are there; `reduced` speaks of all of them. To a
        row's own columns history adds `rank`, `incarnation` and `seq`. Columns that cannot be null are int64 (whole
        numbers), float64 or object (text); those that can be are float64, NaN where null (text: None).
        A table that the history does not have gives no columns.

        Raises:
            KeyError: the table has no column of that name.
        """
        with self._guard():
            kinds = self._column_types(table)
        if not kinds:
            return {}
        wanted = list(names) if names is not None else [*_KEYS, *(name for name in kinds if name not in _KEYS.values())]
        stored = list(dict.fromkeys(_KEYS.get(name, name) for name in wanted))
        missing = [name for name in stored if name not in kinds]
        if missing:
            raise KeyError(f"{table} has no column {missing[0]!r}; it has {', '.join([*_KEYS, *kinds])}")
        with self._guard():
            named = _named(self._read(table, {name: kinds[name] for name in stored}), self._sources())
            return {name: named[name] for name in wanted}

    def marked_columns(self, table: str) -> Columns:
        """All columns of a row table; and of one that has roll-ups `rolled_up`, which tells the rows that are in them.

        The rows that are not, and the roll-ups, have every row of the table once.
        """
        with self._guard():
            kinds = self._column_types(table)
            if not kinds or not self._is_rolled(table):
                return self.columns(table)
            self._connection.execute("BEGIN")
            try:
                arrays = self._read(table, {**kinds, "rowid": np.int64})
                bounds = self._connection.execute(
                    "SELECT source, head_end, rolled_end FROM rolled WHERE tbl = ?", (table,)
                ).fetchall()
                sources = self._sources()
            finally:
                self._connection.execute("COMMIT")
        rowid, source = arrays.pop("rowid"), arrays["source"]
        rolled_up = np.zeros(rowid.size, bool)
        for one, head_end, rolled_end in bounds:
            rolled_up |= (source == one) & (rowid > head_end) & (rowid <= rolled_end)
        return {**_named(arrays, sources), "rolled_up": rolled_up}

    def reduced(self, table: str) -> ReducedTable | None:
        """The whole of a table: rows as they came, and those between the first and the last rolled up.

        Null where the history does not have the table, or it is empty.
        """
        with self._guard():
            kinds = self._column_types(table)
            if not kinds:
                return None
            self._connection.execute("BEGIN")  # rows and roll-ups as they are at one moment
            try:
                is_rolled = self._is_rolled(table)
                where = (NOT_ROLLED, table) if is_rolled else ()
                arrays = self._read(table, {**kinds, "rowid": np.int64}, *where)
                texts = [name for name, kind in kinds.items() if kind is object]
                rolled = read_rolled(self._connection, table, texts) if is_rolled else None
                sources = self._sources()
            finally:
                self._connection.execute("COMMIT")
        rowid, source = arrays.pop("rowid"), arrays["source"]
        rows = reduced(table, _named(arrays, sources)) if source.size else None
        del arrays  # what follows from them is in `rows`
        if rolled is None:
            return rows
        entries = _owned(rolled, sources)
        if rows is None:
            return entries
        arrived = (np.append(rowid, rolled.after_rowid), np.append(source, rolled.source))
        return interleave(rows, entries, np.lexsort((*arrived, np.append(rows.rank, entries.rank))))

    def rolled(self, table: str) -> ReducedTable | None:
        """What was rolled up of a table, as `reduced` has it among the rows; null where nothing was.

        The last of these rows are still kept one by one: `columns` has those too, `marked_columns` tells them apart.
        """
        with self._guard():
            kinds = self._column_types(table)
            if not kinds or not self._is_rolled(table):
                return None
            texts = [name for name, kind in kinds.items() if kind is object]
            rolled = read_rolled(self._connection, table, texts)
            return None if rolled is None else _owned(rolled, self._sources())

    def joined_steps(self) -> JoinedSteps | None:
        """The steps that all ranks did, joined, beyond the first ones; null where no more than those were done."""
        with self._guard():
            if not self._has("rank_joins"):
                return None
            self._connection.execute("BEGIN")
            try:
                row = self._connection.execute("SELECT after_step, until_step FROM rank_joins").fetchone()
                if row is None:
                    return None
                stored = read_join(self._connection)
                arrays = self._read("step_time", self._column_types("step_time"), "WHERE t.step > ?", row[1])
                later = _named(arrays, self._sources())
            finally:
                self._connection.execute("COMMIT")
        return JoinedSteps(row[0], joined_with(stored, reduced("step_time", later) if later["rank"].size else None))

    def tables(self) -> list[str]:
        """The names of the row tables."""
        with self._guard():
            rows = self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")
            return [name for (name,) in rows if name not in OWN_TABLES]

    def ranks(self) -> list[RankRecord]:
        """Every incarnation of every rank, by rank, then in the order in which they came."""
        fields = RankRecord.__struct_fields__
        with self._guard():
            rows = self._connection.execute(f"SELECT {', '.join(fields)} FROM ranks ORDER BY rank, source")
            return [_rank_record(dict(zip(fields, row, strict=True))) for row in rows]

    def facts(self) -> RunFacts | None:
        """What the lowest rank that told anything knows of the run."""
        with self._guard():
            row = self._connection.execute("SELECT facts FROM facts ORDER BY rank LIMIT 1").fetchone()
            return None if row is None else msgspec.json.decode(row[0], type=RunFacts)

    def failures(self) -> dict[str, int]:
        """What failed in the aggregator itself, by edge; the ranks' own failures are in their records."""
        with self._guard():
            return dict(self._connection.execute("SELECT edge, count FROM failures ORDER BY edge"))

    def _column_types(self, table: str) -> dict[str, Any]:
        """The columns of a table, `source` and `seq` included, and the type of array that holds each."""
        rows = self._connection.execute("SELECT name, type, [notnull] FROM pragma_table_info(?)", (table,))
        return {name: _array_type(kind, bool(notnull)) for name, kind, notnull in rows}

    def _is_rolled(self, table: str) -> bool:
        """Whether some rows of a table are in the roll-ups; a history of the first version has none."""
        if not self._has("rolled"):
            return False
        return bool(self._connection.execute("SELECT count(*) FROM rolled WHERE tbl = ?", (table,)).fetchone()[0])

    def _has(self, table: str) -> bool:
        found = self._connection.execute("SELECT count(*) FROM sqlite_master WHERE name = ?", (table,))
        return bool(found.fetchone()[0])

    def _read(self, table: str, kinds: Mapping[str, Any], where: str = "", *values: Any) -> dict[str, np.ndarray]:
        names = ", ".join(f't."{name}"' for name in kinds)
        cursor = self._connection.execute(f'SELECT {names} FROM "{table}" AS t {where} ORDER BY t.rowid', values)
        parts: list[list[np.ndarray]] = [[np.empty(0, kind)] for kind in kinds.values()]
        # Small chunks: the Python objects on the way to the arrays stay few, and in the processor's cache.
        while rows := cursor.fetchmany(_CHUNK_ROWS):
            for part, values, kind in zip(parts, zip(*rows, strict=True), kinds.values(), strict=True):
                part.append(array_of(values, kind))
        # Each column's parts are let go as soon as they are put together: there may be very many rows.
        return {name: np.concatenate(parts.pop(0)) for name in kinds}

    def _sources(self) -> dict[str, np.ndarray]:
        """Rank and incarnation by the number of their source."""
        rows = self._connection.execute("SELECT source, rank, incarnation FROM ranks").fetchall()
        size = max((source for source, *_ in rows), default=0) + 1
        keys = {"rank": np.zeros(size, np.int64), "incarnation": np.zeros(size, np.int64)}
        for source, rank, incarnation in rows:
            keys["rank"][source] = rank
            keys["incarnation"][source] = incarnation
        return keys

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, *GARBLED) as error:
            raise unreadable(self._path, error) from error


def _owned(rolled: RolledEntries, sources: Mapping[str, np.ndarray]) -> ReducedTable:
    """Rolled-up entries with their rank and incarnation."""
    return msgspec.structs.replace(rolled.entries, **{key: values[rolled.source] for key, values in sources.items()})


def _named(arrays: dict[str, np.ndarray], sources: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns with rank and incarnation in the place of their source."""
    source = arrays.get("source")
    keys = {} if source is None else {key: values[source] for key, values in sources.items()}
    return {**keys, **{name: values for name, values in arrays.items() if name != "source"}}


def _array_type(kind: str, notnull: bool) -> Any:
    if kind == "TEXT":
        return object
    return np.int64 if kind == "INTEGER" and notnull else np.float64


def _rank_record(values: dict[str, Any]) -> RankRecord:
    values["failures"] = json.loads(values["failures"])
    values["error"] = None if values["error"] is None else msgspec.json.decode(values["error"], type=RunError)
    return RankRecord(**values)
