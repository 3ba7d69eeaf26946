"""How a history file is opened: for writing with the right journal, for reading without harm to its writer."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import msgspec

from traceml_core.core.presence import is_file
from traceml_core.history.file_system import is_network_file_system
from traceml_core.history.tables import OLDEST_SCHEMA_VERSION, SCHEMA_VERSION

BUSY_TIMEOUT_S = 5.0
# SQLite does not check the content of its pages: what is garbled fails wherever it is decoded, put into an array, or
# looked up by. These are the ways in which it does.
GARBLED = (msgspec.MsgspecError, ValueError, TypeError, LookupError, OverflowError, RecursionError)


class HistoryUnreadableError(Exception):
    """The file cannot be read as a run's history; the message says why, and what to do."""


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open or create the file, with transactions left to the caller.

    In WAL, `synchronous=NORMAL` makes a commit safe from the death of any process and leaves the file whole after a
    power cut, which may cost the last commits: a fair price for telemetry, against an fsync for each commit.
    Under a rollback journal NORMAL could damage the file, so FULL it is.

    Raises:
        sqlite3.Error: the file cannot be opened or is no database.
    """
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA journal_mode = {'DELETE' if is_network_file_system(path) else 'WAL'}")
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        connection.execute(f"PRAGMA synchronous = {'NORMAL' if mode == 'wal' else 'FULL'}")
        connection.execute("PRAGMA cache_size = -8192")
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open an existing history read-only, also while it is written, or where its folder cannot be written.

    Raises:
        HistoryUnreadableError: it is missing, damaged, no history, or one of a newer TraceML.
    """
    if not is_file(path):
        raise HistoryUnreadableError(
            f"{path} does not exist; is this a run folder, and has its run recorded anything yet?"
        )
    try:
        connection = _connect(path)
    except (sqlite3.DatabaseError, *GARBLED) as error:
        raise unreadable(path, error) from error
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if OLDEST_SCHEMA_VERSION <= version <= SCHEMA_VERSION:
        return connection
    connection.close()
    if version > SCHEMA_VERSION:
        raise HistoryUnreadableError(
            f"{path} was written by a newer TraceML (its schema is {version}, this one reads up to {SCHEMA_VERSION}); "
            "update this one (pip install -U traceml-callbacks)"
        )
    raise HistoryUnreadableError(
        f"{path} holds no TraceML history: it is empty or belongs to another program; name a run folder"
    )


def unreadable(path: Path, error: Exception) -> HistoryUnreadableError:
    """What to tell of a file that cannot be read as a history."""
    return HistoryUnreadableError(
        f"{path} cannot be read ({error}); it is damaged or no TraceML history. "
        "Its final_summary.json, where there is one, still holds the report"
    )


def _connect(path: Path) -> sqlite3.Connection:
    try:
        return _connect_by(f"{path.absolute().as_uri()}?mode=ro")
    except sqlite3.OperationalError:
        if os.access(path.parent, os.W_OK):
            raise
        beside = [path.with_name(path.name + suffix) for suffix in ("-wal", "-journal")]
        unfinished = [file for file in beside if file.is_file() and file.stat().st_size > 0]
        if not unfinished:
            return _connect_by(f"{path.absolute().as_uri()}?mode=ro&immutable=1")
        # A run that died in a folder which is now read-only: its last rows lie beside the file, where SQLite looks
        # only if it may write.
        return _copy_in_memory(path, unfinished)


def _copy_in_memory(path: Path, unfinished: list[Path]) -> sqlite3.Connection:
    with tempfile.TemporaryDirectory(prefix="traceml-") as folder:
        for file in (path, *unfinished):
            shutil.copyfile(file, Path(folder) / file.name)
        memory = sqlite3.connect(":memory:", isolation_level=None)
        with closing(sqlite3.connect(Path(folder) / path.name)) as copy:
            copy.backup(memory)
    return memory


def _connect_by(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection
