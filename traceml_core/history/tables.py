"""The tables of a run's history, derived from row types: their DDL, their insert statement, their decoder."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import msgspec

from traceml_core.core.rows import Column, Row, columns_of

SCHEMA_VERSION = 2
# A history of this version is whole rows alone, and is read as such.
OLDEST_SCHEMA_VERSION = 1

# What history adds in front of every row. `source` is the id of a (rank, incarnation) in `ranks`: one byte instead of
# ten in each of millions of rows.
KEY_COLUMNS = ("source", "seq")

_STRICT_SINCE = (3, 37, 0)
_SQL_TYPES: dict[type, str] = {int: "INTEGER", float: "REAL", str: "TEXT"}
# What a column of SQLite can hold. A row beyond that is refused as it is decoded, not in the middle of an insert.
_WIRE_TYPES: dict[type, Any] = {int: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)], float: float, str: str}

_RANKS = """
    source INTEGER PRIMARY KEY,
    rank INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,
    local_rank INTEGER NOT NULL,
    world_size INTEGER NOT NULL,
    nodes INTEGER NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started_unix_ns INTEGER NOT NULL,
    watermark INTEGER NOT NULL DEFAULT 0,
    last_seen_unix_ns INTEGER NOT NULL,
    elapsed_ns INTEGER NOT NULL DEFAULT 0,
    wall_ns INTEGER,
    status TEXT NOT NULL DEFAULT 'running',
    error TEXT,
    rows_received INTEGER NOT NULL DEFAULT 0,
    rows_dropped INTEGER NOT NULL DEFAULT 0,
    failures TEXT NOT NULL DEFAULT '{}',
    overhead_ns_per_step REAL,
    UNIQUE (rank, incarnation)
"""

# Rows of one source in one table: the first, up to rowid `head_end`, are kept; those from there to `rolled_end` are in
# the roll-ups, whether they are still kept or not; later ones are not yet. `rows` counts all up to `rolled_end`.
_ROLLED = """
    source INTEGER NOT NULL,
    tbl TEXT NOT NULL,
    head_end INTEGER NOT NULL,
    rolled_end INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    last_step REAL,
    pass INTEGER NOT NULL,
    PRIMARY KEY (source, tbl)
"""
# Rolled-up rows that belong together: of one source, table, pass over the steps, and set of texts. `columns` names the
# numbers in the blobs of its buckets; a bucket holds `span` positions.
_SERIES = """
    series INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    tbl TEXT NOT NULL,
    outside INTEGER NOT NULL,
    pass INTEGER NOT NULL,
    texts TEXT NOT NULL,
    columns TEXT NOT NULL,
    span INTEGER NOT NULL,
    UNIQUE (source, tbl, outside, pass, texts)
"""
_BUCKETS = """
    series INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    numbers BLOB NOT NULL,
    PRIMARY KEY (series, bucket)
"""
_SKETCHES = """
    series INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    sketches BLOB NOT NULL,
    PRIMARY KEY (series, segment)
"""
# Steps joined across ranks, one row: those after `after_step` up to `until_step`.
_JOINS = """
    one INTEGER PRIMARY KEY,
    after_step REAL NOT NULL,
    until_step REAL NOT NULL,
    joined BLOB
"""
OWN_TABLES: dict[str, str] = {
    "ranks": _RANKS,
    "facts": "rank INTEGER PRIMARY KEY, facts TEXT NOT NULL",
    "failures": "edge TEXT PRIMARY KEY, count INTEGER NOT NULL",
    "rolled": _ROLLED,
    "rollup_series": _SERIES,
    "rollup_buckets": _BUCKETS,
    "rollup_sketches": _SKETCHES,
    "rank_joins": _JOINS,
}
"""The tables that are no row type's, and their columns."""


class RowTable(msgspec.Struct, frozen=True):
    """One row type as history sees it. `decode` turns a chunk's msgpack array into tuples in column order."""

    name: str
    ddl: str
    insert: str
    decode: Callable[[Any], list[tuple[Any, ...]]]
    columns: tuple[Column, ...]


def row_table(row_type: type[Row]) -> RowTable:
    """Derive a table from a row type.

    Raises:
        TypeError: a field of the row type is not one that a row may have.
    """
    columns = columns_of(row_type)
    names = [*KEY_COLUMNS, *(column.name for column in columns)]
    definitions = [*(f"{key} INTEGER NOT NULL" for key in KEY_COLUMNS), *map(_definition, columns)]
    # A float that is not a number is null to SQLite: OR IGNORE leaves out a row that has one where null is not allowed.
    insert = f'INSERT OR IGNORE INTO "{row_type.table}" ({", ".join(map(_quoted, names))}) VALUES ({_marks(names)})'
    wire = [_WIRE_TYPES[column.kind] | None if column.nullable else _WIRE_TYPES[column.kind] for column in columns]
    decoder = msgspec.msgpack.Decoder(list[tuple[tuple(wire)]])  # type: ignore[misc]
    ddl = _table(row_type.table, ", ".join(definitions))
    return RowTable(row_type.table, ddl, insert, decoder.decode, columns)


def create_tables(connection: sqlite3.Connection, tables: Iterable[RowTable]) -> None:
    """Create what is missing, in one transaction, so that no reader ever sees half a schema.

    Raises:
        sqlite3.DatabaseError: the file is of a newer TraceML.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"written by a newer TraceML (schema {version}, this one has {SCHEMA_VERSION})")
        for name, definitions in OWN_TABLES.items():
            connection.execute(_table(name, definitions))
        for table in tables:
            connection.execute(table.ddl)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _table(name: str, definitions: str) -> str:
    strict = " STRICT" if sqlite3.sqlite_version_info >= _STRICT_SINCE else ""
    return f"CREATE TABLE IF NOT EXISTS {_quoted(name)} ({definitions}){strict}"


def _definition(column: Column) -> str:
    return f"{_quoted(column.name)} {_SQL_TYPES[column.kind]}{'' if column.nullable else ' NOT NULL'}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _marks(names: list[str]) -> str:
    return ", ".join("?" * len(names))
