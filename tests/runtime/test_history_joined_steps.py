"""Steps are joined across ranks as they are rolled up, and the join is that of all rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telemetry_factory import make_batch, make_identity, make_step_row

from traceml_core.core.phases import Phase
from traceml_core.history import bounded_rows, rank_window
from traceml_core.history.reader import HistoryReader
from traceml_core.history.writer import HistoryWriter
from traceml_core.samplers.step_time import StepTimeRow
from traceml_core.statistics.rank_join import join_rows

DETAIL = 32
ENDS = ["", "restart", "lose"]


@pytest.fixture(autouse=True)
def few_details(monkeypatch):
    monkeypatch.setattr(bounded_rows, "LARGEST_DETAIL", DETAIL)
    monkeypatch.setattr(bounded_rows, "LARGE_CHUNK_ROWS", 16)
    monkeypatch.setattr(rank_window, "PORTION_STEPS", 10)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "telemetry.sqlite"


def open_writer(path, ranks, keep_rows=60, world_size=None):
    writer = HistoryWriter(path, (StepTimeRow,), keep_rows)
    for rank in range(ranks):
        writer.hello(make_identity(rank, world_size=world_size or ranks), 5)
    return writer


def row(step, rank):
    spent = {"forward_ns": 1_000 + step % 7 + 50 * rank * (step % 3), "grad_sync_ns": 100, "h2d_ns": 10 * rank}
    nothing = {f"{phase.key}_ns": 0 for phase in Phase}
    return make_step_row(step, started_ns=10**18 + step * 10**6, **{**nothing, **spent})


def write(writer, rank, seq, steps):
    writer.write(make_batch(seq, [row(step, rank) for step in steps], rank=rank))
    writer.commit()


def expected(ranks, steps):
    rows = [row(step, rank) for rank in range(ranks) for step in steps]
    phase_ns = np.array([[getattr(one, f"{phase.key}_ns") for one in rows] for phase in Phase], np.float64)
    return join_rows(np.repeat(np.arange(ranks), len(steps)), np.tile(steps, ranks), phase_ns)


def joined(path):
    with HistoryReader(path) as reader:
        return reader.joined_steps()


def assert_same(join, other):
    assert (join.joined_steps, join.unsplit_steps) == (other.joined_steps, other.unsplit_steps)
    for name in ("ranks", "total_ns", "slowest_steps", "lead_ns", "blame_ns"):
        assert np.array_equal(getattr(join, name), getattr(other, name)), name
    assert (join.lag.count, join.lag.bins) == (other.lag.count, other.lag.bins)


@pytest.mark.parametrize("chunk", [1, 9, 50])
def test_all_steps_beyond_the_first_are_joined_once(path, chunk):
    writer = open_writer(path, 3)
    for seq, begin in enumerate(range(1, 301, chunk), start=1):
        for rank in range(3):
            write(writer, rank, seq, range(begin, min(begin + chunk, 301)))
    writer.close()
    found = joined(path)
    assert found.after_step == DETAIL
    assert found.join.incomplete_steps == 0
    assert_same(found.join, expected(3, np.arange(DETAIL + 1, 301)))


def test_a_start_up_record_among_the_first_rows_costs_no_step(path):
    writer = open_writer(path, 2)
    for rank in range(2):
        startup = make_step_row(None, started_ns=10**18)
        writer.write(make_batch(1, [startup, *(row(step, rank) for step in range(6, DETAIL + 5))], rank=rank))
    for seq, begin in enumerate(range(DETAIL + 5, 300, 20), start=2):
        for rank in range(2):
            write(writer, rank, seq, range(begin, begin + 20))
    writer.close()
    found = joined(path)
    with HistoryReader(path) as reader:
        steps = reader.reduced("step_time")
    alone = steps.minima["step"][(steps.rows == 1) & (steps.rank == 0)]
    assert found.after_step in alone
    assert found.join.joined_steps == np.nanmax(steps.maxima["step"]) - found.after_step


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 25), st.sampled_from(["", "restart", "lose"])), max_size=40)
)
def test_ranks_that_come_apart_and_writers_that_die_change_nothing(tmp_path_factory, deliveries):
    path = tmp_path_factory.mktemp("history") / "telemetry.sqlite"
    writer = open_writer(path, 2, keep_rows=2_000)
    done, seqs = [0, 0], [0, 0]
    for rank, count, then in [*deliveries, (0, 60, ""), (1, 60, "")]:
        steps = range(done[rank] + 1, done[rank] + count + 1)
        if then == "lose":
            writer.write(make_batch(seqs[rank] + 1, [row(step, rank) for step in steps], rank=rank))
            writer._undo()
            continue
        seqs[rank] += 1
        write(writer, rank, seqs[rank], steps)
        done[rank] += count
        if then == "restart":
            writer._connection.close()
            writer = open_writer(path, 2, keep_rows=2_000)
    writer.close()
    found = joined(path)
    if found is None:  # both ranks sent no more than their first rows
        assert max(seqs) <= 2 or max(done) < DETAIL + 16 + 60
        return
    assert_same(found.join, expected(2, np.arange(DETAIL + 1, min(done) + 1)))
    assert found.join.incomplete_steps == max(done) - min(done)


def test_a_rank_that_is_gone_does_not_hold_up_the_others_for_ever(path, monkeypatch):
    monkeypatch.setattr(rank_window, "LARGEST_ROWS", 200)
    writer = open_writer(path, 3)
    for seq, begin in enumerate(range(1, 1_001, 20), start=1):
        for rank in range(3):
            if rank < 2 or begin < 200:
                write(writer, rank, seq, range(begin, begin + 20))
    writer.close()
    join = joined(path).join
    assert join.joined_steps > 800
    assert join.joined_steps + join.incomplete_steps == 1_000 - DETAIL


def test_a_rank_that_comes_late_is_waited_for(path):
    writer = open_writer(path, 1, world_size=2)
    write(writer, 0, 1, range(1, 201))
    write(writer, 0, 2, range(201, 401))
    writer.hello(make_identity(1, world_size=2), 5)
    write(writer, 1, 1, range(1, 401))
    writer.close()
    found = joined(path)
    assert_same(found.join, expected(2, np.arange(DETAIL + 1, 401)))
    assert found.join.incomplete_steps == 0


def test_one_rank_alone_has_nothing_to_join(path):
    writer = open_writer(path, 1)
    write(writer, 0, 1, range(1, 201))
    write(writer, 0, 2, range(201, 401))
    writer.close()
    assert joined(path) is None
