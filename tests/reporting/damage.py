"""Run folders that are damaged, empty, foreign, half-written or of a newer TraceML, by the name of the damage."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from run_factory import make_run_folder

from traceml_core.reporting.stored_summary import load_summary

# JSON that ends, in more layers than a decoder follows.
TOO_DEEP = b'{"run": ' * 5_000 + b"1" + b"}" * 5_000


def missing(parent: Path) -> Path:
    return parent / "nowhere"


def missing_with_a_name_too_long(parent: Path) -> Path:
    return parent / ("n" * 300)


def empty(parent: Path) -> Path:
    folder = parent / "empty"
    folder.mkdir(parents=True)
    return folder


def foreign(parent: Path) -> Path:
    folder = empty(parent)
    (folder / "model.pt").write_bytes(b"weights")
    return folder


def a_foreign_file(parent: Path) -> Path:
    return foreign(parent) / "model.pt"


def a_foreign_json(parent: Path) -> Path:
    path = empty(parent) / "config.json"
    path.write_text('{"learning_rate": 0.1}')
    return path


def without_history(parent: Path) -> Path:
    return make_run_folder(parent, history=False)


def manifest_of_garbage(parent: Path) -> Path:
    folder = make_run_folder(parent, history=False)
    (folder / "manifest.json").write_bytes(b"\xff{")
    return folder


def manifest_nested_too_deep(parent: Path) -> Path:
    folder = make_run_folder(parent, history=False)
    (folder / "manifest.json").write_bytes(TOO_DEEP)
    return folder


def history_of_garbage(parent: Path) -> Path:
    return _with_history(parent, b"no database at all" * 100)


def history_of_nothing(parent: Path) -> Path:
    return _with_history(parent, b"")


def history_cut_short(parent: Path) -> Path:
    folder = make_run_folder(parent, steps=20)
    return _with_history(parent, (folder / "telemetry.sqlite").read_bytes()[:2_000])


def history_of_another_program(parent: Path) -> Path:
    folder = _with_history(parent, b"")
    with closing(sqlite3.connect(folder / "telemetry.sqlite")) as connection:
        connection.execute("CREATE TABLE theirs (one INTEGER)")
    return folder


def history_of_a_newer_version(parent: Path) -> Path:
    folder = make_run_folder(parent, steps=20)
    with closing(sqlite3.connect(folder / "telemetry.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 99")
    return folder


def history_is_a_folder(parent: Path) -> Path:
    folder = make_run_folder(parent, history=False)
    (folder / "telemetry.sqlite").mkdir()
    return folder


def summary_of_a_newer_version(parent: Path) -> Path:
    return _with_summary(parent, b'{"schema_version": "9.0", "run": {}}', history=False)


def summary_half_written(parent: Path) -> Path:
    return _with_summary(parent, b'{"schema_version": "1.0", "run": {"run_id": "2026', history=False)


def summary_of_nothing(parent: Path) -> Path:
    return _with_summary(parent, b"", history=False)


def summary_nested_too_deep(parent: Path) -> Path:
    return _with_summary(parent, TOO_DEEP, history=False)


def summary_of_something_else(parent: Path) -> Path:
    return _with_summary(parent, b"[1, 2]", history=False)


def summary_is_a_folder(parent: Path) -> Path:
    folder = make_run_folder(parent, history=False)
    (folder / "final_summary.json").mkdir()
    return folder


UNREADABLE: tuple[Callable[[Path], Path], ...] = (
    missing,
    missing_with_a_name_too_long,
    empty,
    foreign,
    a_foreign_file,
    a_foreign_json,
    without_history,
    manifest_of_garbage,
    manifest_nested_too_deep,
    history_of_garbage,
    history_of_nothing,
    history_cut_short,
    history_of_another_program,
    history_of_a_newer_version,
    history_is_a_folder,
    summary_of_a_newer_version,
    summary_half_written,
    summary_of_nothing,
    summary_nested_too_deep,
    summary_of_something_else,
    summary_is_a_folder,
)
"""Nothing can be told of these."""


def a_summary_half_written_beside_its_history(parent: Path) -> Path:
    return _with_summary(parent, b'{"schema_version": "1.0", "run', history=True)


def a_newer_summary_beside_its_history(parent: Path) -> Path:
    return _with_summary(parent, b'{"schema_version": "2.0"}', history=True)


def a_history_of_garbage_beside_its_summary(parent: Path) -> Path:
    folder = _reported(parent)
    (folder / "telemetry.sqlite").write_bytes(b"no database at all" * 100)
    return folder


def a_history_damaged_in_parts_beside_its_summary(parent: Path) -> Path:
    """The first pages are as they were, and with them the list of tables."""
    folder = _reported(parent)
    path = folder / "telemetry.sqlite"
    whole = path.read_bytes()
    keep = len(whole) // 3
    path.write_bytes(whole[:keep] + b"\xa5" * (len(whole) - keep))
    return folder


def a_summary_without_its_history(parent: Path) -> Path:
    folder = _reported(parent)
    (folder / "telemetry.sqlite").unlink()
    return folder


def a_summary_without_sections(parent: Path) -> Path:
    folder = _reported(parent)
    summary = json.loads((folder / "final_summary.json").read_text())
    (folder / "final_summary.json").write_text(json.dumps({**summary, "sections": {}}))
    return folder


def a_table_damaged_beside_its_summary(parent: Path) -> Path:
    """All but the steps can be read."""
    return damage_table(_reported(parent), "step_time")


def damage_table(folder: Path, table: str) -> Path:
    """Overwrite the first page of one table in a run's history; all others stay whole."""
    path = folder / "telemetry.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    data = bytearray(path.read_bytes())
    data[(page - 1) * size : page * size] = b"\xff" * size
    path.write_bytes(data)
    return folder


HALF_READABLE: tuple[Callable[[Path], Path], ...] = (
    a_summary_half_written_beside_its_history,
    a_newer_summary_beside_its_history,
    a_history_of_garbage_beside_its_summary,
    a_history_damaged_in_parts_beside_its_summary,
    a_summary_without_its_history,
    a_summary_without_sections,
    a_table_damaged_beside_its_summary,
)
"""Of these a verb may tell what it can, or say what is wrong."""


def _reported(parent: Path) -> Path:
    folder = make_run_folder(parent, steps=200)
    load_summary(folder)
    return folder


def _with_history(parent: Path, data: bytes) -> Path:
    folder = make_run_folder(parent, history=False)
    (folder / "telemetry.sqlite").write_bytes(data)
    return folder


def _with_summary(parent: Path, data: bytes, *, history: bool) -> Path:
    folder = make_run_folder(parent, steps=20, history=history)
    (folder / "final_summary.json").write_bytes(data)
    return folder
