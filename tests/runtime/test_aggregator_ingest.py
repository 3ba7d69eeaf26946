"""Ingest acks what is committed, keeps what cannot be written yet, and tells rank 0 the verdict."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from telemetry_factory import make_batch, make_finish, make_hello, make_step_row

from traceml_core.aggregator.ingest import Ingest
from traceml_core.history.reader import HistoryReader
from traceml_core.history.writer import HistoryWriter
from traceml_core.loggers.error_log import FAILURES
from traceml_core.samplers.step_time import StepTimeRow
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import (
    Ack,
    Describe,
    FromAggregator,
    RunError,
    Verdict,
    Welcome,
    decode_from_rank,
    encode,
)

RANK_0, RANK_1 = b"peer 0", b"peer 1"
FROM_RANK = [
    make_hello(0),
    make_batch(1, [make_step_row(1)], failures={"Sender": 1}),
    Describe(RunFacts(framework="manual", versions={"torch": "2"})),
    make_finish(0, status="failed", error=RunError("ValueError", "boom", 1, 2), rows_made=4),
]
VERDICT = Verdict(
    "INPUT_BOUND", "warning", "Training waits for data.", "Raise num_workers.", {"traceml/step_time_ms": 1.0}
)


class FailingWriter(HistoryWriter):
    """A writer whose commits fail while `disk_is_full` is set on the class."""

    disk_is_full = False

    def commit(self) -> None:
        if FailingWriter.disk_is_full and self._connection.in_transaction:
            self._undo()
            raise sqlite3.OperationalError("database or disk is full")
        super().commit()


@pytest.fixture
def said() -> list[tuple[bytes, FromAggregator]]:
    return []


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "telemetry.sqlite"


@pytest.fixture
def ingest(path, said, monkeypatch):
    monkeypatch.setattr("traceml_core.aggregator.ingest.HistoryWriter", FailingWriter)
    monkeypatch.setattr(FailingWriter, "disk_is_full", False)
    ingest = Ingest(path, (StepTimeRow,), lambda peer, message: said.append((peer, message)))
    yield ingest
    ingest.close()


def greet(ingest: Ingest, *ranks: int) -> None:
    ingest.take([(b"peer %d" % rank, make_hello(rank)) for rank in ranks])


def steps_in(path: Path) -> list[float]:
    with HistoryReader(path) as reader:
        return list(reader.columns("step_time", ["step"])["step"])


def test_a_hello_is_answered_with_the_watermark(ingest, said):
    greet(ingest, 0)
    ingest.take([(RANK_0, make_batch(1)), (RANK_0, make_batch(2)), (RANK_0, make_hello(0))])
    (_, first), (_, ack), (_, second) = said
    assert isinstance(first, Welcome)
    assert first.watermark == 0
    assert ack == Ack(2)
    assert second == Welcome(first.aggregator, 2)


def test_batches_that_come_together_get_one_ack_a_rank(ingest, said, path):
    greet(ingest, 0, 1)
    said.clear()
    messages = [(RANK_0, make_batch(seq, [make_step_row(seq)])) for seq in (1, 2, 3)]
    ingest.take([*messages, (RANK_1, make_batch(1, rank=1))])
    assert said == [(RANK_0, Ack(3)), (RANK_1, Ack(1))]
    assert steps_in(path) == [1, 2, 3]


def test_a_batch_that_was_stored_before_is_acked_again(ingest, said):
    greet(ingest, 0)
    for _ in range(2):
        said.clear()
        ingest.take([(RANK_0, make_batch(1))])
        assert said == [(RANK_0, Ack(1))]


def test_a_batch_after_a_gap_is_not_acked(ingest, said):
    greet(ingest, 0)
    said.clear()
    ingest.take([(RANK_0, make_batch(2))])
    assert said == []


def test_on_a_full_disk_nothing_is_acked_and_all_is_stored_once_there_is_room(ingest, said, path, monkeypatch):
    greet(ingest, 0)
    ingest.take([(RANK_0, make_batch(1, [make_step_row(1)]))])
    said.clear()
    before = FAILURES["ingest"]
    monkeypatch.setattr(FailingWriter, "disk_is_full", True)
    batch = make_batch(2, [make_step_row(2)])
    ingest.take([(RANK_0, batch), (RANK_0, Describe(RunFacts(framework="lightning")))])
    ingest.take([(RANK_0, make_finish(0, report=False))])
    assert said == []
    assert FAILURES["ingest"] > before
    monkeypatch.setattr(FailingWriter, "disk_is_full", False)
    ingest.take([(RANK_0, batch)])
    assert said == [(RANK_0, Ack(2))]
    assert steps_in(path) == [1, 2]
    with HistoryReader(path) as reader:
        assert reader.facts() == RunFacts(framework="lightning")
        assert reader.ranks()[0].status == "completed"


def test_a_history_that_cannot_be_opened_is_tried_again(tmp_path, said, monkeypatch):
    monkeypatch.setattr("traceml_core.aggregator.ingest.REOPEN_INTERVAL_S", 0.0)
    folder = tmp_path / "not there yet"
    ingest = Ingest(folder / "telemetry.sqlite", (StepTimeRow,), lambda peer, message: said.append((peer, message)))
    greet(ingest, 0)
    assert said == []
    folder.mkdir()
    greet(ingest, 0)
    assert isinstance(said[0][1], Welcome)
    ingest.close()


def test_the_live_verdict_rides_on_acks_to_rank_0_once(ingest, said):
    greet(ingest, 0, 1)
    ingest.verdict = VERDICT
    said.clear()
    ingest.take([(RANK_0, make_batch(1)), (RANK_1, make_batch(1, rank=1))])
    ingest.take([(RANK_0, make_batch(2))])
    assert said == [(RANK_0, Ack(1, VERDICT)), (RANK_1, Ack(1)), (RANK_0, Ack(2))]


def test_ranks_run_until_they_finish_and_a_restarted_rank_runs_again(ingest):
    greet(ingest, 0, 1)
    assert ingest.running == {0, 1}
    ingest.take([(RANK_1, make_finish(1))])
    assert ingest.running == {0}
    ingest.take([(b"again", make_hello(1, incarnation=9)), (RANK_1, make_finish(1))])
    assert ingest.running == {0, 1}


@pytest.mark.parametrize(
    ("statuses", "ending"),
    [
        ({}, "interrupted"),
        ({1: "completed"}, "interrupted"),
        ({0: "completed"}, "completed"),
        ({0: "completed", 1: "failed"}, "failed"),
        ({1: "failed"}, "failed"),
        ({0: "interrupted", 1: "completed"}, "interrupted"),
    ],
)
def test_the_run_ends_as_its_ranks_said_and_as_interrupted_where_the_owner_said_nothing(ingest, statuses, ending):
    greet(ingest, 0, 1)
    ingest.take([(b"peer %d" % rank, make_finish(rank, status=status)) for rank, status in statuses.items()])
    assert ingest.ending == ending


def test_a_finish_without_a_hello_asks_for_the_report_and_harms_nothing(ingest):
    ingest.take([(RANK_0, make_finish(0))])
    assert list(ingest.report_requests) == [RANK_0]


def test_an_end_that_is_said_again_is_nothing_new_unless_rows_came_between(ingest):
    greet(ingest, 0)
    ingest.take([(RANK_0, make_finish(0))])
    changes = ingest.changes
    ingest.report_requests.clear()
    ingest.take([(RANK_0, make_finish(0))])
    assert (ingest.changes, list(ingest.report_requests)) == (changes, [RANK_0])
    ingest.take([(RANK_0, make_batch(1)), (RANK_0, make_finish(0))])
    assert ingest.changes > changes


def test_what_had_not_come_in_by_the_end_is_lost_until_it_comes(ingest, path):
    greet(ingest, 0)
    ingest.take([(RANK_0, make_batch(1, [make_step_row(1)])), (RANK_0, make_finish(0, rows_made=3))])
    with HistoryReader(path) as reader:
        assert reader.ranks()[0].rows_dropped == 2
    rest = make_batch(2, [make_step_row(2), make_step_row(3)])
    ingest.take([(RANK_0, rest), (RANK_0, make_finish(0, rows_made=3))])
    with HistoryReader(path) as reader:
        assert reader.ranks()[0].rows_dropped == 0


@pytest.fixture
def successor(ingest, path, said):
    """An aggregator that begins where another one, which knew ranks 0 to 2, has died."""
    greet(ingest, 0, 1, 2)
    ingest.take([(RANK_1, make_finish(1, status="failed"))])
    ingest.close()
    successor = Ingest(path, (StepTimeRow,), lambda peer, message: said.append((peer, message)))
    yield successor
    successor.close()


def test_a_successor_knows_how_ranks_have_ended(successor):
    successor.take([(b"new 0", make_hello(0)), (b"new 0", make_finish(0))])
    assert successor.ending == "failed"


def test_a_successor_waits_for_ranks_that_may_come_back_but_not_for_long(successor, monkeypatch):
    assert successor.away == {0, 2}
    successor.take([(b"new 0", make_hello(0))])
    assert (successor.away, successor.running) == ({2}, {0})
    monkeypatch.setattr("traceml_core.aggregator.ingest.RETURN_LIMIT_S", 0.0)
    assert successor.away == frozenset()


NUMBERS = st.integers(-(2**63), 2**64 - 1)
VALUES = st.recursive(
    NUMBERS | st.floats() | st.text(max_size=9) | st.binary(max_size=9) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.sampled_from(FROM_RANK), st.lists(st.tuples(st.integers(0, 60), VALUES | NUMBERS), min_size=1, max_size=3))
def test_no_message_that_can_be_decoded_stops_the_ingest(ingest, said, path, message, changes):
    values = msgspec.msgpack.decode(encode(message))
    for place, value in changes:
        put_in(values, place, value)
    try:
        changed = decode_from_rank(encode(values))
    except (ValueError, RecursionError):
        return
    greet(ingest, 0)
    ingest.take([(RANK_0, changed)])
    said.clear()
    ingest.take([(RANK_0, make_hello(0))])
    assert isinstance(said[-1][1], Welcome)


def put_in(values: list, place: int, value: object) -> None:
    """Replace the leaf of this number, counted through all that is nested."""
    target = values[place % len(values)]
    if isinstance(target, list) and target and place >= len(values):
        put_in(target, place // len(values), value)
    elif isinstance(target, dict) and target and place >= len(values):
        target[sorted(target)[place // len(values) % len(target)]] = value
    else:
        values[place % len(values)] = value


def test_what_failed_here_is_kept_with_the_history(ingest, path, monkeypatch):
    monkeypatch.setattr("traceml_core.aggregator.ingest.FAILURES", type(FAILURES)(reports=2))
    ingest.keep_failures({"refused.wrong key": 3})
    ingest.keep_failures({"refused.wrong key": 1})
    with HistoryReader(path) as reader:
        assert reader.failures() == {"reports": 2, "refused.wrong key": 4}


def test_an_end_counts_once_the_batches_before_it_are_stored(ingest, said):
    ingest.take([(RANK_0, make_hello(0))])
    ingest.take([(RANK_0, make_finish(0, after_seq=2)), (RANK_0, make_batch(1))])
    assert ingest.running == {0} and not ingest.report_requests
    ingest.take([(RANK_0, make_batch(2))])
    assert ingest.running == frozenset() and RANK_0 in ingest.report_requests


def test_an_end_behind_its_batch_in_one_go_counts_at_once(ingest):
    ingest.take([(RANK_0, make_hello(0)), (RANK_0, make_batch(1)), (RANK_0, make_finish(0, after_seq=1))])
    assert (ingest.running, ingest.ending) == (frozenset(), "completed")


def test_an_end_said_again_for_want_of_room_counts_without_its_batches(ingest):
    ingest.take([(RANK_0, make_hello(0)), (RANK_0, make_finish(0, after_seq=5))])
    assert not ingest.report_requests
    ingest.take([(RANK_0, make_finish(0))])
    assert RANK_0 in ingest.report_requests
