"""A long run's history stays bounded and still speaks of every row, whatever came in between."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telemetry_factory import make_batch, make_identity, make_step_row

from traceml_core.history import bounded_rows
from traceml_core.history.reader import HistoryReader
from traceml_core.history.rollup import LARGEST_TEXTS, OTHER
from traceml_core.history.writer import HistoryWriter
from traceml_core.samplers.gpu import GpuRow
from traceml_core.samplers.process import ProcessMemoryRow
from traceml_core.samplers.step_time import OwnerTimeRow, StepTimeRow

ROW_TYPES = (StepTimeRow, OwnerTimeRow, ProcessMemoryRow, GpuRow)
DETAIL = 32


@pytest.fixture(autouse=True)
def few_details(monkeypatch):
    """The bounds of a long run, reached by a short one."""
    monkeypatch.setattr(bounded_rows, "LARGEST_DETAIL", DETAIL)
    monkeypatch.setattr(bounded_rows, "LARGE_CHUNK_ROWS", 16)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "telemetry.sqlite"


def open_writer(path, *ranks, keep_rows=20, **identity):
    writer = HistoryWriter(path, ROW_TYPES, keep_rows)
    for rank in ranks or (0,):
        writer.hello(make_identity(rank, **identity), 5)
    return writer


def step(number, forward_ns=None, **values):
    spent_ns = 1_000 + number if forward_ns is None else forward_ns
    started_ns = 1_760_000_000_000_000_000 + number % 2**20 * 1_000_000
    spent_ns = max(spent_ns, 0) % 2**40
    return make_step_row(number, started_ns=started_ns, interval_ns=spent_ns + 7, forward_ns=spent_ns, **values)


def write_steps(writer, numbers, chunk=10, *, seq=1, rank=0, incarnation=7, **values):
    numbers = list(numbers)
    for begin in range(0, len(numbers), chunk):
        rows = [step(number, **values) for number in numbers[begin : begin + chunk]]
        writer.write(make_batch(seq, rows, rank=rank, incarnation=incarnation))
        writer.commit()
        seq += 1
    return seq


def reduced(path, table="step_time"):
    with HistoryReader(path) as reader:
        return reader.reduced(table)


def count_of(path, query):
    with sqlite3.connect(path) as connection:
        return connection.execute(query).fetchone()[0]


@pytest.mark.parametrize("chunk", [1, 7, 40, 500])
def test_rows_and_buckets_are_bounded_and_no_row_is_missing_from_the_whole(path, chunk):
    writer = open_writer(path, 0, 1)
    for rank in (0, 1):
        write_steps(writer, range(1, 1_001), chunk, rank=rank)
    writer.close()
    table = reduced(path)
    for rank in (0, 1):
        mine = table.take(table.rank == rank)
        assert mine.rows.sum() == mine.counts["forward_ns"].sum() == 1_000
        assert mine.total("forward_ns") == sum(1_000 + number for number in range(1, 1_001))
        assert (mine.smallest("forward_ns"), mine.largest("forward_ns")) == (1_001, 2_000)
        assert mine.minima["step"].tolist() == sorted(mine.minima["step"])
    bound = DETAIL + 20 + DETAIL + 3 * chunk
    assert count_of(path, "SELECT count(*) FROM step_time") <= 2 * bound
    assert count_of(path, "SELECT max(n) FROM (SELECT count(*) AS n FROM rollup_buckets GROUP BY series)") <= DETAIL


def test_a_run_that_is_shorter_than_the_detail_is_rows_alone(path):
    writer = open_writer(path)
    write_steps(writer, range(1, DETAIL + 1))
    writer.close()
    assert reduced(path).rows.tolist() == [1] * DETAIL
    assert count_of(path, "SELECT count(*) FROM rollup_buckets") == 0


def test_the_first_rows_stay_as_they_came_and_the_last_ones_too(path):
    writer = open_writer(path)
    write_steps(writer, range(1, 1_001))
    writer.close()
    with HistoryReader(path) as reader:
        steps = reader.columns("step_time", ["step"])["step"]
    assert steps[:DETAIL].tolist() == list(range(1, DETAIL + 1))
    assert steps[-20:].tolist() == list(range(981, 1_001))
    first = reduced(path).rows[:DETAIL]
    assert first.tolist() == [1] * DETAIL


def test_a_setting_that_keeps_more_keeps_more(path):
    writer = open_writer(path, keep_rows=500)
    write_steps(writer, range(1, 1_001))
    writer.close()
    assert 500 + DETAIL <= count_of(path, "SELECT count(*) FROM step_time") <= 500 + 2 * DETAIL + 30


def test_very_many_ranks_have_less_detail_each(path, monkeypatch):
    monkeypatch.setattr(bounded_rows, "DETAIL_OF_ALL", 64)
    monkeypatch.setattr(bounded_rows, "SMALLEST_DETAIL", 8)
    writer = open_writer(path, world_size=8)
    write_steps(writer, range(1, 500), chunk=4)
    writer.close()
    assert count_of(path, "SELECT count(*) FROM rollup_buckets") <= 8


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 10**9), min_size=100, max_size=400), st.sampled_from([3, 20, 90]))
def test_quantiles_over_roll_ups_are_within_one_percent(tmp_path_factory, spent_ns, chunk):
    path = tmp_path_factory.mktemp("history") / "telemetry.sqlite"
    writer = open_writer(path)
    for seq, begin in enumerate(range(0, len(spent_ns), chunk), start=1):
        part = spent_ns[begin : begin + chunk]
        writer.write(make_batch(seq, [step(begin + place + 1, value) for place, value in enumerate(part)]))
    writer.close()
    sketch = reduced(path).sketches_by_rank("forward_ns")[0]
    assert (sketch.count, sketch.maximum) == (len(spent_ns), max(spent_ns))
    for share in (0.5, 0.95):
        exact = float(np.quantile(spent_ns, share, method="inverted_cdf"))
        assert sketch.quantile(share) == pytest.approx(exact, rel=0.0101)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.sampled_from(["commit", "lose", "restart", "resend"])), max_size=25),
    st.integers(0, 2),
)
def test_lost_transactions_restarts_and_resends_count_nothing_twice_and_lose_nothing(tmp_path_factory, batches, end):
    path = tmp_path_factory.mktemp("history") / "telemetry.sqlite"
    writer = open_writer(path)
    seq, number, committed, told = 0, 0, (0, 0), None
    for rows, then in [*batches, (1 + end, "commit")]:
        told = make_batch(seq + 1, [step(number + place + 1) for place in range(rows)])
        writer.write(told)
        if then == "lose":
            writer._undo()
            seq, number = committed
            continue
        seq, number = seq + 1, number + rows
        writer.commit()
        committed = (seq, number)
        if then == "restart":
            writer._connection.close()
            writer = open_writer(path)
        elif then == "resend":
            assert writer.write(told) is False
    writer.close()
    table = reduced(path)
    assert table.rows.sum() == number
    assert table.total("forward_ns") == sum(1_000 + place for place in range(1, number + 1))
    assert table.sketches_by_rank("forward_ns")[0].count == number


def test_a_killed_writer_leaves_roll_ups_and_watermark_that_agree(path):
    script = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from traceml_core.history import bounded_rows
bounded_rows.LARGEST_DETAIL, bounded_rows.LARGE_CHUNK_ROWS = 32, 16
from test_history_rollups import open_writer, step
from telemetry_factory import make_batch
writer = open_writer(Path(sys.argv[1]))
seq = 0
while True:
    seq += 1
    writer.write(make_batch(seq, [step(seq * 5 + place) for place in range(5)]))
    writer.commit()
    print(seq, flush=True)
"""
    here = Path(__file__).parent
    command = [sys.executable, "-c", script, str(path), str(here), str(here.parents[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while int(process.stdout.readline()) < 60:
            pass
        os.kill(process.pid, signal.SIGKILL)
    watermark = count_of(path, "SELECT watermark FROM ranks")
    table = reduced(path)
    assert table.rows.sum() == 5 * watermark
    assert table.total("step") == sum(range(5, 5 * watermark + 5))


def test_steps_that_are_done_again_are_rolled_up_apart(path):
    writer = open_writer(path)
    seq = write_steps(writer, range(1, 401))
    write_steps(writer, range(301, 601), seq=seq)
    writer.close()
    table = reduced(path)
    rolled = table.take(table.rows > 1)
    assert table.rows.sum() == 700
    assert (rolled.maxima["step"] - rolled.minima["step"] + 1 == rolled.rows).all()


def test_rows_around_steps_and_rows_of_different_texts_are_rolled_up_apart(path):
    writer = open_writer(path)
    for seq in range(1, 61):
        rows = [OwnerTimeRow("callbacks", owner, seq, seq, 1, spent, spent) for owner, spent in (("A", 3), ("B", 10))]
        writer.write(make_batch(seq, [*rows, make_step_row(None, interval_ns=5, forward_ns=None, startup_ns=5)]))
    writer.close()
    owners, steps = reduced(path, "owner_time"), reduced(path)
    assert {str(owner) for owner in owners.texts["owner"]} == {"A", "B"}
    for owner, spent in (("A", 3), ("B", 10)):
        assert owners.take(owners.texts["owner"] == owner).total("spent_ns") == 60 * spent
    assert (steps.counts["step"] == 0).all()
    assert steps.total("startup_ns") == 300


def test_texts_without_end_share_a_series(path):
    writer = open_writer(path)
    for seq in range(1, 101):
        rows = [OwnerTimeRow("callbacks", f"owner {seq}.{place}", 1, 1, 1, 2, 2) for place in range(10)]
        writer.write(make_batch(seq, rows))
    writer.close()
    assert count_of(path, "SELECT count(*) FROM rollup_series") == LARGEST_TEXTS + 1
    owners = reduced(path, "owner_time")
    assert OTHER in owners.texts["owner"]
    assert owners.total("spent_ns") == 2_000


def test_what_follows_from_a_row_is_rolled_up_with_it(path):
    writer = open_writer(path)
    for seq in range(1, 201):
        look = ProcessMemoryRow(seq, seq, 100 + seq, None if seq % 2 else 50, 1, 30, None)
        gpu = GpuRow(seq, 0, "u", "GPU", 50.0, 10, 40, 60.0, None, None, None, 0x40 if seq <= 50 else 0x4)
        writer.write(make_batch(seq, [look, gpu]))
    writer.close()
    memory, gpus = reduced(path, "process_memory"), reduced(path, "gpu")
    assert memory.largest("job_rss_bytes") == 350
    assert memory.smallest("own_bytes") == 71
    assert gpus.mean("slowed") == pytest.approx(0.25)
    assert gpus.mean("gpu_memory_share") == pytest.approx(0.25)
    assert gpus.mean("gpu_power_share") is None


def test_a_step_that_is_far_off_costs_detail_and_nothing_else(path):
    writer = open_writer(path)
    write_steps(writer, [*range(1, 200), 2**62, -(2**63), 200])
    writer.close()
    table = reduced(path)
    assert table.rows.sum() == 202
    assert table.size <= 4 * DETAIL


def test_a_history_of_the_first_version_is_read_whole(path):
    writer = open_writer(path)
    write_steps(writer, range(1, 21))
    writer.close()
    with sqlite3.connect(path) as connection:
        for table in ("rolled", "rollup_series", "rollup_buckets", "rollup_sketches"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version = 1")
    assert reduced(path).rows.sum() == 20
    again = open_writer(path)
    write_steps(again, range(21, 201), seq=3)
    again.close()
    assert reduced(path).rows.sum() == 200


def test_a_history_of_a_newer_version_is_left_alone(path):
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(sqlite3.DatabaseError, match="newer TraceML"):
        HistoryWriter(path, ROW_TYPES)
    assert count_of(path, "PRAGMA user_version") == 99


def test_a_roll_up_that_fails_costs_no_row(path, monkeypatch):
    writer = open_writer(path)
    seq = write_steps(writer, range(1, 101))
    with monkeypatch.context() as patch:
        patch.setattr("traceml_core.history.rollup.derive", lambda table, columns: 1 / 0)
        with pytest.raises(sqlite3.Error, match="rolling up rows of step_time failed"):
            write_steps(writer, range(101, 201), seq=seq)
        stored = writer.hello(make_identity(), 5)
        write_steps(writer, range(stored * 10 + 1, 201), seq=stored + 1)
    writer.close()
    table = reduced(path)
    assert table.rows.sum() == 200
    assert table.total("step") == sum(range(1, 201))


def test_a_table_that_is_empty_or_not_there_has_nothing_to_reduce(path):
    open_writer(path).close()
    assert reduced(path) is None
    assert reduced(path, "nowhere") is None
