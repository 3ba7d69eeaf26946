"""The reader gives columns, also of a live file, and one clear error for what it cannot read."""

from __future__ import annotations

import math
import os
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from telemetry_factory import make_batch, make_identity, make_step_row

from traceml_core.history.file_system import is_network_file_system
from traceml_core.history.reader import HistoryReader, HistoryUnreadableError
from traceml_core.history.writer import HistoryWriter
from traceml_core.samplers.step_time import OwnerTimeRow, StepTimeRow


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "telemetry.sqlite"


def write_steps(path: Path, *, ranks: int = 1, steps: int = 3, close: bool = True) -> HistoryWriter:
    writer = HistoryWriter(path, (StepTimeRow, OwnerTimeRow))
    for rank in range(ranks):
        writer.hello(make_identity(rank, incarnation=-(2**63) + rank), 5)
        rows = [make_step_row(step, h2d_ns=None if step == 2 else step) for step in range(1, steps + 1)]
        writer.write(make_batch(1, rows, rank=rank, incarnation=-(2**63) + rank))
    writer.commit()
    if close:
        writer.close()
    return writer


def test_columns_carry_rank_incarnation_and_seq_in_order_of_arrival(path):
    write_steps(path, ranks=2)
    with HistoryReader(path) as reader:
        columns = reader.columns("step_time")
    assert list(columns)[:4] == ["rank", "incarnation", "seq", "step"]
    assert list(columns["rank"]) == [0, 0, 0, 1, 1, 1]
    assert list(columns["incarnation"])[::3] == [-(2**63), -(2**63) + 1]
    assert list(columns["step"]) == [1, 2, 3, 1, 2, 3]


def test_what_cannot_be_null_is_int64_and_what_is_null_is_nan(path):
    write_steps(path)
    with HistoryReader(path) as reader:
        columns = reader.columns("step_time", ["started_ns", "h2d_ns"])
    assert list(columns) == ["started_ns", "h2d_ns"]
    assert columns["started_ns"].dtype == np.int64
    assert columns["started_ns"][0] == 1_760_000_000_000_000_000
    assert columns["h2d_ns"].dtype == np.float64
    assert columns["h2d_ns"][0] == 1.0
    assert math.isnan(columns["h2d_ns"][1])


def test_a_table_without_rows_has_empty_columns_of_the_same_types(path):
    write_steps(path)
    with HistoryReader(path) as reader:
        columns = reader.columns("owner_time")
    assert {name: len(values) for name, values in columns.items()}["owner"] == 0
    assert columns["owner"].dtype == object
    assert columns["rank"].dtype == np.int64


def test_a_table_that_is_not_there_has_no_columns_and_a_wrong_name_is_said(path):
    write_steps(path)
    with HistoryReader(path) as reader:
        assert reader.columns("nowhere") == {}
        with pytest.raises(KeyError, match="step_time has no column 'forward_ms'; it has .*forward_ns"):
            reader.columns("step_time", ["forward_ms"])


def test_a_live_history_is_read_while_its_writer_goes_on(path):
    writer = write_steps(path, close=False)
    with HistoryReader(path) as reader:
        assert len(reader.columns("step_time")["step"]) == 3
        writer.write(make_batch(2, [make_step_row(4)], incarnation=-(2**63)))
        writer.commit()
        assert len(reader.columns("step_time")["step"]) == 4
    writer.close()


def test_a_history_with_a_rollback_journal_is_read_while_it_is_written(path, monkeypatch):
    monkeypatch.setattr("traceml_core.history.database.is_network_file_system", lambda _: True)
    writer = write_steps(path, close=False)
    assert not path.with_name(f"{path.name}-wal").exists()
    with HistoryReader(path) as reader:
        writer.write(make_batch(2, [make_step_row(4)], incarnation=-(2**63)))
        writer.commit()
        assert len(reader.columns("step_time")["step"]) == 4
    writer.close()


@pytest.fixture
def open_folder():
    """A folder that every user of the machine can read, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("killed", [False, True])
def test_a_read_only_folder_shows_all_rows_also_of_a_run_that_was_killed(open_folder, killed):
    live = open_folder / "live"
    live.mkdir()
    writer = write_steps(live / "telemetry.sqlite", close=not killed)
    frozen = open_folder / "frozen"
    shutil.copytree(live, frozen, ignore=shutil.ignore_patterns("*-shm"))
    assert (frozen / "telemetry.sqlite-wal").exists() is killed
    frozen.chmod(0o555)
    try:
        assert steps_read_without_privileges(frozen / "telemetry.sqlite") == 3
    finally:
        frozen.chmod(0o755)
        if killed:
            writer.close()


def steps_read_without_privileges(path: Path) -> int:
    """Permissions mean nothing to root, so a child that is somebody else does the reading."""
    child = os.fork()
    if child == 0:
        steps = 255
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            steps = len(HistoryReader(path).columns("step_time")["step"])
        finally:
            os._exit(steps)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_damaged_history_says_so_and_what_is_left(path):
    write_steps(path, steps=2_000)
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(HistoryUnreadableError, match=r"(?s)cannot be read .*damaged.*final_summary.json"):  # noqa: SIM117
        with HistoryReader(path) as reader:
            reader.columns("step_time")


@pytest.mark.parametrize("content", [b"", b"hello, I am a text file\n" * 100])
def test_a_file_that_is_no_history_says_so(path, content):
    path.write_bytes(content)
    with pytest.raises(HistoryUnreadableError, match="no TraceML history"):
        HistoryReader(path)


def test_another_programs_database_and_a_newer_one_are_told_apart(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE ranks (x)")
    with pytest.raises(HistoryUnreadableError, match="another program"):
        HistoryReader(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(HistoryUnreadableError, match="newer TraceML .*; update this one"):
        HistoryReader(path)


def test_a_missing_history_says_so_and_is_not_created(path):
    with pytest.raises(HistoryUnreadableError, match="does not exist"):
        HistoryReader(path)
    assert not path.exists()


def test_network_file_systems_are_known_by_the_mount_above_the_file(tmp_path):
    mounts = tmp_path / "mounts"
    shared = tmp_path / "shared disk"
    escaped = str(shared).replace(" ", "\\040")
    mounts.write_text(
        f"/dev/sda / ext4 rw 0 0\nserver:/x {escaped} nfs4 rw 0 0\n/dev/sdb {escaped}/scratch xfs rw 0 0\n"
    )
    assert is_network_file_system(shared / "runs" / "a.sqlite", mounts)
    assert not is_network_file_system(shared / "scratch" / "a.sqlite", mounts)
    assert not is_network_file_system(tmp_path / "a.sqlite", mounts)
    assert not is_network_file_system(shared / "a.sqlite", tmp_path / "no mounts")


def test_all_columns_of_100_000_steps_are_read_within_a_second(path):
    """0.35 s on an idle core; a busy machine gets room."""
    writer = HistoryWriter(path, (StepTimeRow,), keep_rows=100_000)
    writer.hello(make_identity(), 5)
    rows = [make_step_row(step) for step in range(1_000)]
    for seq in range(1, 101):
        writer.write(make_batch(seq, rows))
    writer.close()
    with HistoryReader(path) as reader:
        began = time.process_time()
        columns = reader.columns("step_time")
        spent_s = time.process_time() - began
    assert len(columns["step"]) == 100_000
    assert spent_s < 1.0
