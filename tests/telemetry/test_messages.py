"""What goes over the wire comes out as it went in, and nothing that comes in can do harm."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceml_core.core.identity import RankIdentity
from traceml_core.core.rows import Row
from traceml_core.history.tables import row_table
from traceml_core.runtime.outbox import sized_chunks
from traceml_core.telemetry.facts import LoaderFacts, RunFacts
from traceml_core.telemetry.messages import (
    Ack,
    Batch,
    Describe,
    Finish,
    Hello,
    Refused,
    Report,
    RunError,
    Verdict,
    Welcome,
    decode_from_aggregator,
    decode_from_rank,
    encode,
)


class ThisRow(Row, frozen=True):
    table = "this"

    number: int | None


class ThatRow(Row, frozen=True):
    table = "that"

    text: str


FACTS = RunFacts(framework="lightning", versions={"torch": "2"}, loader=LoaderFacts(num_workers=2), unmeasured=("h2d",))
VERDICT = Verdict("INPUT_BOUND", "warning", "waits", "raise num_workers", {"traceml/forward_ms": 1.5})
CHUNKS = [sized.chunk for sized in sized_chunks([ThisRow(1), ThatRow("ä"), ThisRow(None)])]

FROM_RANK = [
    Hello(RankIdentity(rank=3, incarnation=-(2**63)), 5),
    Batch(3, -(2**63), 1, 10, 0, {"sampler": 1}, CHUNKS),
    Describe(FACTS),
    Finish(0, 7, "failed", RunError("ValueError", None, 3, None), 10, 1.5, True, "full", 80, False),
]
FROM_AGGREGATOR = [Welcome(2**63 - 1, 0), Ack(4), Ack(5, VERDICT), Refused("no hello"), Report("card\n", VERDICT)]


@pytest.mark.parametrize("message", FROM_RANK, ids=lambda message: type(message).__name__)
def test_what_a_rank_says_is_understood(message):
    assert decode_from_rank(encode(message)) == message


@pytest.mark.parametrize("message", FROM_AGGREGATOR, ids=lambda message: type(message).__name__)
def test_what_the_aggregator_says_is_understood(message):
    assert decode_from_aggregator(encode(message)) == message


def test_rows_are_grouped_by_table_in_order():
    assert [(chunk.table, msgspec.msgpack.decode(chunk.rows)) for chunk in CHUNKS] == [
        ("this", [[1], [None]]),
        ("that", [["ä"]]),
    ]
    assert sized_chunks([]) == []


@pytest.mark.parametrize("message", [*FROM_RANK, *FROM_AGGREGATOR], ids=lambda message: type(message).__name__)
def test_half_a_message_is_an_error_of_msgspec(message):
    data = encode(message)
    for decode in (decode_from_rank, decode_from_aggregator):
        with pytest.raises(msgspec.MsgspecError):
            decode(data[: len(data) // 2])


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x92\xdb\xff\xff\xff\xff",
        b"\x92\xa8describe\xc9\xff\xff\xff\xff\x01",
        encode(FROM_RANK[1])[: -len(encode(CHUNKS))] + b"\xdd\xff\xff\xff\xff",
        b"\x91" * 1_000_000,
    ],
    ids=["array", "map", "text", "extension", "chunks", "nesting"],
)
def test_a_length_that_is_only_announced_costs_no_memory(data):
    tracemalloc.start()
    try:
        for decode in (decode_from_rank, row_table(ThisRow).decode):
            with pytest.raises((msgspec.MsgspecError, RecursionError)):
                decode(data)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**64 - 1])
def test_numbers_that_no_database_holds_are_refused(number):
    for message in (FROM_RANK[0], FROM_RANK[1], FROM_RANK[3]):
        values = msgspec.msgpack.decode(encode(message))
        for place, value in enumerate(values):
            if type(value) is int and -(2**64) < number < 2**64:
                try:
                    changed = encode([*values[:place], number, *values[place + 1 :]])
                except OverflowError:
                    continue  # msgpack has no such number either
                with pytest.raises(msgspec.ValidationError):
                    decode_from_rank(changed)


@given(
    data=st.binary(max_size=200) | st.sampled_from(FROM_RANK).map(encode),
    flips=st.lists(st.tuples(st.integers(0), st.integers(0, 255))),
)
def test_no_bytes_can_do_more_than_be_refused(data, flips):
    changed = bytearray(data)
    for position, value in flips[: len(changed)]:
        changed[position % len(changed)] = value
    try:
        message = decode_from_rank(bytes(changed))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    assert isinstance(message, (Hello, Batch, Describe, Finish))
