"""The writer keeps each batch exactly once, whatever comes when."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telemetry_factory import make_batch, make_finish, make_identity, make_step_row

from traceml_core.core.rows import Row
from traceml_core.history.reader import HistoryReader
from traceml_core.history.writer import HistoryWriter, SequenceGapError
from traceml_core.loggers.error_log import FAILURES
from traceml_core.runtime.sampler_registry import row_types
from traceml_core.samplers.step_time import StepTimeRow
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import Chunk, RunError


class EveryKindRow(Row, frozen=True):
    table = "every_kind"

    whole: int
    whole_or_null: int | None
    real: float
    real_or_null: float | None
    text: str
    text_or_null: str | None


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "telemetry.sqlite"


@pytest.fixture
def writer(path):
    writer = HistoryWriter(path, (StepTimeRow, EveryKindRow))
    writer.hello(make_identity(), 5)
    yield writer
    writer.close()


def steps_in(path: Path) -> list[int]:
    with HistoryReader(path) as reader:
        return [int(step) for step in reader.columns("step_time", ["step"]).get("step", [])]


def test_rows_of_every_registered_type_get_a_table(path):
    HistoryWriter(path, row_types()).close()
    with HistoryReader(path) as reader:
        assert reader.tables() == [row_type.table for row_type in row_types()]


def test_a_batch_that_comes_twice_is_stored_once(writer, path):
    batch = make_batch(1, [make_step_row(1), make_step_row(2)])
    assert writer.write(batch) is True
    assert writer.write(batch) is False
    writer.commit()
    assert steps_in(path) == [1, 2]


def test_a_batch_after_a_gap_is_refused(writer, path):
    writer.write(make_batch(1, [make_step_row(1)]))
    with pytest.raises(SequenceGapError, match="rank 0: batch 3 came after 1"):
        writer.write(make_batch(3, [make_step_row(3)]))
    writer.commit()
    assert steps_in(path) == [1]


def test_the_watermark_of_a_hello_counts_what_is_committed(writer):
    writer.write(make_batch(1))
    writer.write(make_batch(2))
    assert writer.hello(make_identity(), 5) == 2
    assert writer.hello(make_identity(incarnation=8), 6) == 0


def test_a_new_writer_continues_an_existing_history(writer, path):
    writer.write(make_batch(1, [make_step_row(1)]))
    writer.close()
    again = HistoryWriter(path, (StepTimeRow, EveryKindRow))
    assert again.hello(make_identity(), 5) == 1
    assert again.write(make_batch(1, [make_step_row(1)])) is False
    again.write(make_batch(2, [make_step_row(2)]))
    again.close()
    assert steps_in(path) == [1, 2]


def test_rows_before_a_commit_are_not_there_for_others(writer, path):
    writer.write(make_batch(1, [make_step_row(1)]))
    assert steps_in(path) == []
    writer.commit()
    assert steps_in(path) == [1]


def test_values_come_back_as_they_were_sent(writer, path):
    rows = [EveryKindRow(2**63 - 1, None, 0.1, None, "ä\0'\"", None), EveryKindRow(-(2**63), 3, 1e300, -0.5, "", "x")]
    writer.write(make_batch(1, rows))
    writer.commit()
    with sqlite3.connect(path) as connection:
        stored = connection.execute(f"SELECT {', '.join(EveryKindRow.__struct_fields__)} FROM every_kind").fetchall()
    assert stored == [msgspec.structs.astuple(row) for row in rows]


@pytest.mark.parametrize(
    "chunk",
    [
        Chunk("no_such_table", msgspec.Raw(msgspec.msgpack.encode([[1]]))),
        Chunk("step_time", msgspec.Raw(msgspec.msgpack.encode([["not", "a", "row"]]))),
        Chunk("step_time", msgspec.Raw(msgspec.msgpack.encode(7))),
        Chunk("every_kind", msgspec.Raw(msgspec.msgpack.encode([[2**63, 1, 1.0, 1.0, "", ""]]))),
        Chunk("every_kind", msgspec.Raw(msgspec.msgpack.encode([[1, 1, 1.0, 1.0, b"bytes", ""]]))),
        Chunk("every_kind", msgspec.Raw(b"\x91\x96\x01\x01\x01\x01\xa1\xff\xa0")),
    ],
)
def test_a_chunk_that_cannot_be_read_costs_only_itself(writer, path, chunk):
    before = FAILURES["history"]
    good = make_batch(1, [make_step_row(1)])
    writer.write(msgspec.structs.replace(good, chunks=[chunk, *good.chunks]))
    writer.commit()
    assert steps_in(path) == [1]
    assert FAILURES["history"] == before + 1
    assert writer.hello(make_identity(), 5) == 1


def test_a_row_with_a_number_that_is_none_costs_only_itself(writer, path):
    good = EveryKindRow(1, None, 1.0, float("nan"), "", None)
    writer.write(make_batch(1, [EveryKindRow(1, None, float("nan"), None, "", None), good]))
    writer.commit()
    with HistoryReader(path) as reader:
        assert len(reader.columns("every_kind")["real"]) == 1
        assert reader.ranks()[0].rows_received == 1


def test_a_full_disk_undoes_the_transaction_and_loses_nothing_that_was_acked(writer, path):
    writer.write(make_batch(1, [make_step_row(1)]))
    writer.commit()
    writer._connection.execute("PRAGMA cache_spill = 1")
    pages = writer._connection.execute("PRAGMA page_count").fetchone()[0]
    writer._connection.execute(f"PRAGMA max_page_count = {pages + 3}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        for seq in range(2, 50):
            writer.write(make_batch(seq, [make_step_row(seq)] * 100))
    assert writer.hello(make_identity(), 5) == 1
    assert steps_in(path) == [1]
    writer._connection.execute("PRAGMA max_page_count = 1000000")
    assert writer.write(make_batch(2, [make_step_row(2)])) is True
    writer.commit()
    assert steps_in(path) == [1, 2]


def test_what_is_known_of_a_rank_follows_its_batches_and_its_end(writer, path):
    writer.write(make_batch(1, [make_step_row(1)], elapsed_ns=3_000, rows_dropped=4, failures={"sampler": 2}))
    writer.finish(make_finish(status="failed", error=RunError("ValueError", "no", 3, 5), wall_ns=4_000))
    writer.commit()
    with HistoryReader(path) as reader:
        (record,) = reader.ranks()
    assert (record.rank, record.incarnation, record.status) == (0, 7, "failed")
    assert record.error == RunError("ValueError", "no", 3, 5)
    assert (record.elapsed_ns, record.wall_ns, record.rows_received, record.rows_dropped) == (3_000, 4_000, 1, 4)
    assert (record.failures, record.overhead_ns_per_step) == ({"sampler": 2}, 900.0)


def test_the_lowest_rank_that_described_the_run_is_believed(writer, path):
    writer.describe(1, RunFacts(framework="from rank 1"))
    writer.describe(0, RunFacts(framework="lightning"))
    writer.describe(0, RunFacts(framework="lightning", device="cpu"))
    writer.commit()
    with HistoryReader(path) as reader:
        assert reader.facts() == RunFacts(framework="lightning", device="cpu")


def test_failures_of_the_aggregator_add_up(writer, path):
    writer.failed(Counter(ingest=2))
    writer.failed(Counter(ingest=1, reports=1))
    writer.commit()
    with HistoryReader(path) as reader:
        assert reader.failures() == {"ingest": 3, "reports": 1}


def test_after_close_the_history_is_one_plain_file(writer, path):
    writer.write(make_batch(1, [make_step_row(1)]))
    writer.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_close_leaves_the_history_readable_while_somebody_reads_it(writer, path):
    writer.write(make_batch(1, [make_step_row(1)]))
    writer.commit()
    with HistoryReader(path) as reader:
        rows = reader._connection.execute("SELECT rank FROM ranks")
        writer.close()
        rows.fetchall()
    assert steps_in(path) == [1]


def test_committed_rows_survive_a_killed_writer(path):
    script = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from telemetry_factory import make_batch, make_identity, make_step_row
from traceml_core.history.writer import HistoryWriter
from traceml_core.samplers.step_time import StepTimeRow
writer = HistoryWriter(Path(sys.argv[1]), (StepTimeRow,))
writer.hello(make_identity(), 5)
seq = 0
while True:
    seq += 1
    writer.write(make_batch(seq, [make_step_row(seq)]))
    writer.commit()
    print(seq, flush=True)
"""
    here = Path(__file__).parent
    command = [sys.executable, "-c", script, str(path), str(here), str(here.parents[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        told = 0
        while told < 50:
            told = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        told = max(int(line) for line in [str(told), *process.stdout.read().split("\n")[:-1]])
    steps = steps_in(path)
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) in (told, told + 1)
    again = HistoryWriter(path, (StepTimeRow,))
    assert again.hello(make_identity(), 5) == len(steps)
    again.close()


@settings(max_examples=40, deadline=None)
@given(
    deliveries=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 6), st.booleans()), max_size=40),
)
def test_any_order_of_deliveries_stores_each_batch_once_and_in_order(tmp_path_factory, deliveries):
    path = tmp_path_factory.mktemp("history") / "telemetry.sqlite"
    writer = HistoryWriter(path, (StepTimeRow,))
    expected = {0: 0, 1: 0}
    for rank in expected:
        writer.hello(make_identity(rank), 5)
    for rank, seq, commits in deliveries:
        batch = make_batch(seq, [make_step_row(seq)], rank=rank)
        if seq > expected[rank] + 1:
            with pytest.raises(SequenceGapError):
                writer.write(batch)
        else:
            assert writer.write(batch) is (seq == expected[rank] + 1)
            expected[rank] = max(expected[rank], seq)
        if commits:
            writer.commit()
    writer.close()
    with HistoryReader(path) as reader:
        columns = reader.columns("step_time", ["rank", "seq", "step"])
    for rank, last in expected.items():
        assert list(columns["step"][columns["rank"] == rank]) == list(range(1, last + 1))
