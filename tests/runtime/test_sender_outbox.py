"""The outbox: numbered batches in order, bounded in bytes, sent again after a rewind."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from telemetry_factory import make_step_row

from traceml_core.core.rows import Row
from traceml_core.runtime.outbox import BATCH_LIMIT_BYTES, IN_FLIGHT_LIMIT, ROWS_PER_CHUNK, Outbox, sized_chunks
from traceml_core.telemetry.messages import Batch
from traceml_core.transport.server import MAX_MESSAGE_BYTES


class TextRow(Row, frozen=True):
    """A row as large as one likes."""

    table = "text"

    text: str


class Receiver:
    """What the aggregator would do: store a batch that comes next, once."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.watermark = 0

    def take(self, batch: Batch) -> bool:
        if batch.seq == self.watermark + 1:
            self.watermark = batch.seq
            self.batches.append(batch)
        return True

    @property
    def rows(self) -> int:
        return sum(len(msgspec.msgpack.decode(chunk.rows)) for batch in self.batches for chunk in batch.chunks)


def put(outbox: Outbox, *rows: Row, dropped: int = 0) -> None:
    outbox.put(sized_chunks(rows), 1, dropped, {})


def drain(outbox: Outbox, receiver: Receiver) -> None:
    while len(outbox):
        outbox.send(receiver.take)
        outbox.acknowledge(receiver.watermark)


def test_rows_leave_once_and_in_order():
    outbox, receiver = Outbox(3, 9), Receiver()
    for step in range(50):
        put(outbox, make_step_row(step))
    drain(outbox, receiver)
    assert [batch.seq for batch in receiver.batches] == list(range(1, 51))
    assert {(batch.rank, batch.incarnation) for batch in receiver.batches} == {(3, 9)}


def test_no_more_than_the_limit_is_under_way():
    outbox, sent = Outbox(0, 1), []
    for step in range(40):
        put(outbox, make_step_row(step))
    outbox.send(lambda batch: sent.append(batch.seq) or True)
    outbox.send(lambda batch: sent.append(batch.seq) or True)
    assert sent == list(range(1, IN_FLIGHT_LIMIT + 1))
    outbox.acknowledge(2)
    outbox.send(lambda batch: sent.append(batch.seq) or True)
    assert sent[IN_FLIGHT_LIMIT:] == [17, 18]


def test_a_full_wire_is_tried_again_from_the_same_batch():
    outbox, sent = Outbox(0, 1), []
    for step in range(3):
        put(outbox, make_step_row(step))
    outbox.send(lambda batch: batch.seq < 2)
    outbox.send(lambda batch: sent.append(batch.seq) or True)
    assert sent == [2, 3]


def test_after_a_rewind_everything_that_is_not_stored_is_sent_again_in_order():
    outbox, sent = Outbox(0, 1), []
    for step in range(5):
        put(outbox, make_step_row(step))
    outbox.send(lambda batch: True)
    outbox.acknowledge(2)
    assert outbox.waits
    outbox.rewind()
    assert not outbox.waits
    outbox.send(lambda batch: sent.append(batch.seq) or True)
    assert sent == [3, 4, 5]


def test_what_goes_beyond_the_bound_is_dropped_and_counted_in_what_is_told():
    outbox, receiver = Outbox(0, 1, limit_bytes=1_000), Receiver()
    for step in range(100):
        put(outbox, make_step_row(step), dropped=4)
    outbox.put([], 2, 4, {})
    drain(outbox, receiver)
    assert 0 < receiver.rows < 100
    assert receiver.batches[-1].rows_dropped == 4 + 100 - receiver.rows
    assert [batch.seq for batch in receiver.batches] == list(range(1, len(receiver.batches) + 1))


def test_there_is_room_again_once_batches_are_stored():
    outbox, receiver = Outbox(0, 1, limit_bytes=1_000), Receiver()
    for step in range(1_000):
        put(outbox, make_step_row(step))
        drain(outbox, receiver)
    assert receiver.rows == 1_000 and outbox.rows_dropped == 0


def test_many_rows_are_split_into_messages_that_fit():
    outbox, receiver = Outbox(0, 1), Receiver()
    put(outbox, *[make_step_row()] * 10_000, *[TextRow("x" * 2_000)] * 2_000)
    drain(outbox, receiver)
    assert receiver.rows == 12_000
    sizes = [len(msgspec.msgpack.encode(batch)) for batch in receiver.batches]
    assert max(sizes) < BATCH_LIMIT_BYTES + 1_000 < MAX_MESSAGE_BYTES


def test_a_single_row_that_fits_into_no_message_is_dropped_and_the_others_go():
    outbox, receiver = Outbox(0, 1), Receiver()
    put(outbox, TextRow("a"), TextRow("x" * (BATCH_LIMIT_BYTES + 1)), TextRow("b"))
    drain(outbox, receiver)
    assert receiver.rows == 2 and outbox.rows_dropped == 1


def test_an_empty_batch_carries_the_last_word():
    outbox, receiver = Outbox(0, 1), Receiver()
    outbox.put([], 77, 5, {"Sender": 2})
    drain(outbox, receiver)
    (batch,) = receiver.batches
    assert (batch.elapsed_ns, batch.rows_dropped, batch.failures, batch.chunks) == (77, 5, {"Sender": 2}, [])


def test_what_cannot_be_encoded_is_an_error_before_anything_is_numbered():
    with pytest.raises(TypeError):
        sized_chunks([TextRow(object())])  # type: ignore[arg-type]


def test_chunks_hold_a_bounded_number_of_rows():
    chunks = sized_chunks([make_step_row()] * (2 * ROWS_PER_CHUNK + 1))
    assert [chunk.rows for chunk in chunks] == [ROWS_PER_CHUNK, ROWS_PER_CHUNK, 1]


@given(st.lists(st.sampled_from(["put", "send", "lose", "ack", "rewind"]), max_size=60))
def test_whatever_is_lost_on_the_way_every_batch_is_stored_once_and_in_order(events):
    outbox, receiver = Outbox(0, 1), Receiver()
    made = 0
    for event in events:
        if event == "put":
            made += 1
            put(outbox, make_step_row(made))
        elif event == "send":
            outbox.send(receiver.take)
        elif event == "lose":
            outbox.send(lambda batch: True)
        elif event == "ack":
            outbox.acknowledge(receiver.watermark)
        else:
            outbox.rewind()
    outbox.acknowledge(receiver.watermark)
    outbox.rewind()
    drain(outbox, receiver)
    assert [batch.seq for batch in receiver.batches] == list(range(1, made + 1))
