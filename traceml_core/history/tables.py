"""The tables of a run's history, derived from the row types that samplers declare."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from traceml_core.core.rows import Column, Row, columns_of

SCHEMA_VERSION = 1
SQL_TYPES = {int: "INTEGER", float: "REAL", str: "TEXT"}
BATCH_COLUMNS = ("rank", "incarnation", "seq")

# One record a rank and incarnation; `watermark` is the last batch whose rows are stored.
RANKS_DDL = """
CREATE TABLE IF NOT EXISTS ranks (
    rank INTEGER NOT NULL, incarnation INTEGER NOT NULL, identity TEXT NOT NULL,
    started_unix_ns INTEGER NOT NULL, last_seen_unix_ns INTEGER NOT NULL,
    watermark INTEGER NOT NULL DEFAULT 0, elapsed_ns INTEGER NOT NULL DEFAULT 0,
    rows_received INTEGER NOT NULL DEFAULT 0, rows_dropped INTEGER NOT NULL DEFAULT 0,
    failures TEXT NOT NULL DEFAULT '{}',
    status TEXT, error TEXT, wall_ns INTEGER, overhead_ns_per_step REAL,
    PRIMARY KEY (rank, incarnation)
) STRICT
"""
FACTS_DDL = "CREATE TABLE IF NOT EXISTS facts (id INTEGER PRIMARY KEY CHECK (id = 1), facts TEXT NOT NULL) STRICT"


class RowTable(msgspec.Struct, frozen=True):
    """One row type's table: its columns, and the statements that make and fill it."""

    name: str
    columns: tuple[Column, ...]
    create: str
    insert: str
    decode_rows: msgspec.msgpack.Decoder[list[Row]]


def row_tables(row_types: Iterable[type[Row]]) -> dict[str, RowTable]:
    """The tables of these row types, by name.

    Raises:
        TypeError: two row types claim one table, or a field cannot be stored.
    """
    tables: dict[str, RowTable] = {}
    for row_type in row_types:
        if row_type.table in tables:
            raise TypeError(f"two row types claim the table {row_type.table!r}; {row_type.__name__} needs another name")
        tables[row_type.table] = _table(row_type)
    return tables


def _table(row_type: type[Row]) -> RowTable:
    columns = columns_of(row_type)
    names = [*BATCH_COLUMNS, *(column.name for column in columns)]
    declared = [f"{name} INTEGER NOT NULL" for name in BATCH_COLUMNS]
    declared += [f"{_quoted(column.name)} {_sql_type(column)}" for column in columns]
    table = _quoted(row_type.table)
    return RowTable(
        row_type.table,
        columns,
        f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(declared)}) STRICT",
        f"INSERT INTO {table} ({', '.join(map(_quoted, names))}) VALUES ({', '.join('?' * len(names))})",
        msgspec.msgpack.Decoder(list[row_type]),  # type: ignore[valid-type]
    )


def _sql_type(column: Column) -> str:
    return SQL_TYPES[column.kind] + ("" if column.nullable else " NOT NULL")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
