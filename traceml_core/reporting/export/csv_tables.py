"""A run as a folder of CSV files, a table each."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from traceml_core.history.reader import HistoryReader
from traceml_core.reporting.run_tables import SUMMARY_TABLES, Table, stored_table, stored_table_names
from traceml_core.reporting.summary import FinalSummary

_CHUNK_ROWS = 5_000


def write_tables(folder: Path, reader: HistoryReader, summary: FinalSummary) -> int:
    """Write every table of a run into a folder, one after the other; how many there are.

    Raises:
        HistoryUnreadableError: the history is damaged.
        OSError: a file cannot be written.
    """
    names = stored_table_names(reader)
    for name in names:
        _write(folder / f"{name}.csv", stored_table(reader, name))
    for name, table_of in SUMMARY_TABLES.items():
        _write(folder / f"{name}.csv", table_of(summary))
    return len(names) + len(SUMMARY_TABLES)


def _write(path: Path, table: Table) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(_rows(table))


def _rows(table: Table) -> Iterator[tuple[object, ...]]:
    """Rows as text: what was not measured is empty, and whole numbers have no decimals."""
    size = next((values.size for values in table.values()), 0)
    is_whole = {name: _is_whole(values) for name, values in table.items()}
    for start in range(0, size, _CHUNK_ROWS):
        parts = (_cells(values[start : start + _CHUNK_ROWS], is_whole[name]) for name, values in table.items())
        yield from zip(*parts, strict=True)


def _is_whole(values: np.ndarray) -> bool:
    """Whether a column of floats holds whole numbers alone: counts, bytes, nanoseconds that may be null."""
    if values.dtype != np.float64:
        return False
    known = values[~np.isnan(values)]
    return bool((np.floor(known) == known).all() and (np.abs(known) < 2**63).all())


def _cells(values: np.ndarray, is_whole: bool) -> list[object]:
    if values.dtype != np.float64:
        return list(values.tolist())
    if is_whole:
        return [int(value) if value == value else None for value in values.tolist()]
    return [value if value == value else None for value in values.tolist()]
