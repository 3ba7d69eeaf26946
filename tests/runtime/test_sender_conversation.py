"""What a rank says when: hello first, again after silence or refusal, and everything once more to a new aggregator."""

from __future__ import annotations

import msgspec
import pytest
from telemetry_factory import make_finish, make_identity, make_step_row

from traceml_core.loggers.error_log import FAILURES
from traceml_core.runtime.conversation import (
    ANSWER_LIMIT_S,
    FLUSH_LIMIT_S,
    LAST_ANSWER_LIMIT_S,
    REFUSED_INTERVAL_S,
    STORE_LIMIT_S,
    Conversation,
)
from traceml_core.runtime.outbox import Outbox, sized_chunks
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import (
    NO_HELLO,
    Ack,
    Batch,
    Describe,
    Finish,
    FromAggregator,
    FromRank,
    Hello,
    Refused,
    Report,
    Verdict,
    Welcome,
)

VERDICT = Verdict("NORMAL", "info", "", "", {})


class Wire:
    """A rank's conversation over a wire that the test holds in its hands."""

    def __init__(self) -> None:
        self.said: list[FromRank] = []
        self.answers: list[FromAggregator] = []
        self.takes = True
        self.now_s = 100.0
        self.outbox = Outbox(0, 7)
        self.rank = Conversation(self, make_identity(), self.outbox, lambda: self.now_s)

    def send(self, message: FromRank) -> bool:
        if self.takes:
            self.said.append(message)
        return self.takes

    def receive(self, timeout_ms: int = 0) -> FromAggregator | None:
        return self.answers.pop(0) if self.answers else None

    def step(self, *answers: FromAggregator, after_s: float = 0.0) -> list[FromRank]:
        """Let time pass, answer, and give what the rank says to it."""
        self.now_s += after_s
        self.answers += answers
        self.said = []
        self.rank.exchange()
        return self.said

    def put(self, count: int = 1) -> None:
        for _ in range(count):
            self.outbox.put(sized_chunks([make_step_row()]), 1, 0, {})


@pytest.fixture
def wire() -> Wire:
    return Wire()


def kinds(said: list[FromRank]) -> list[type]:
    return [type(message) for message in said]


def seqs(said: list[FromRank]) -> list[int]:
    return [message.seq for message in said if isinstance(message, Batch)]


def test_nothing_but_hello_is_said_before_the_welcome(wire):
    wire.put()
    assert kinds(wire.step()) == [Hello]
    assert wire.step(after_s=1.0) == []
    assert seqs(wire.step(Welcome(1, 0))) == [1]


def test_an_unanswered_hello_is_said_again_every_two_seconds(wire):
    wire.step()
    assert wire.step(after_s=ANSWER_LIMIT_S - 0.1) == []
    assert kinds(wire.step(after_s=0.2)) == [Hello]
    assert wire.step(after_s=1.0) == []
    assert kinds(wire.step(after_s=ANSWER_LIMIT_S)) == [Hello]


def test_a_rank_with_nothing_to_say_keeps_silent(wire):
    wire.step()
    wire.step(Welcome(1, 0))
    assert wire.step(after_s=60.0) == []


def test_without_an_ack_for_two_seconds_it_asks_and_sends_again_what_lies_after_the_watermark(wire):
    wire.step()
    wire.step(Welcome(1, 0))
    wire.put(3)
    assert seqs(wire.step()) == [1, 2, 3]
    assert kinds(wire.step(after_s=ANSWER_LIMIT_S + 0.1)) == [Hello]
    assert seqs(wire.step(Welcome(1, 2))) == [3]


def test_a_second_welcome_that_nobody_waited_for_sends_nothing_twice(wire):
    wire.step()
    wire.step(after_s=ANSWER_LIMIT_S + 0.1)
    wire.put(2)
    assert seqs(wire.step(Welcome(1, 0))) == [1, 2]
    assert wire.step(Welcome(1, 0)) == []


def test_a_new_aggregator_hears_everything_that_it_has_not_stored(wire):
    wire.step()
    wire.rank.describe(RunFacts(framework="manual"))
    wire.put(2)
    assert kinds(wire.step(Welcome(1, 0))) == [Describe, Batch, Batch]
    assert wire.step() == []
    said = wire.step(Welcome(2, 1))
    assert kinds(said) == [Describe, Batch] and seqs(said) == [2]


def test_who_is_refused_as_a_stranger_introduces_itself_soon_but_not_each_time(wire):
    wire.step()
    wire.step(Welcome(1, 0))
    wire.put(5)
    wire.step()
    before = FAILURES["refused"]
    assert wire.step(Refused(NO_HELLO), Refused(NO_HELLO)) == []
    assert FAILURES["refused"] == before  # a new aggregator has to get to know its ranks
    assert wire.step(Refused("rows for another rank")) == []
    assert FAILURES["refused"] == before + 1
    assert kinds(wire.step(after_s=REFUSED_INTERVAL_S + 0.01)) == [Hello]
    assert wire.step() == []
    assert seqs(wire.step(Welcome(1, 0))) == [1, 2, 3, 4, 5]


def test_the_newest_verdict_stays_until_there_is_another(wire):
    wire.step()
    wire.step(Welcome(1, 0), Ack(0, VERDICT))
    wire.step(Ack(0))
    assert wire.rank.verdict is VERDICT


def test_the_end_is_said_right_behind_the_last_batch_and_over_with_its_report(wire):
    wire.step()
    wire.step(Welcome(1, 0))
    wire.put()
    wire.rank.end(make_finish())
    batch, finish = wire.step()
    assert (batch.seq, finish.after_seq) == (1, 1)
    assert wire.step(Ack(1)) == []
    assert wire.step(after_s=0.4) == [] and not wire.rank.is_over
    wire.step(Report("card", VERDICT))
    assert wire.rank.is_over and wire.rank.report == Report("card", VERDICT)


def test_where_batches_are_not_stored_the_end_is_said_again_so_that_it_counts_without_them(wire):
    wire.step()
    wire.step(Welcome(1, 0))
    wire.put(2)
    wire.step()
    wire.now_s += 60.0
    wire.rank.end(make_finish())
    (finish,) = wire.step(Ack(1), after_s=STORE_LIMIT_S - 0.1)
    assert finish.after_seq == 2
    assert Finish not in kinds(wire.step(after_s=STORE_LIMIT_S - 0.1))
    (again,) = (said for said in wire.step(after_s=0.2) if isinstance(said, Finish))
    assert again.after_seq == 0
    assert Finish not in kinds(wire.step(after_s=0.1))


def test_a_rank_that_wants_no_report_is_not_over_before_its_batches_are_stored(wire):
    wire.step()
    wire.step(Welcome(1, 0))
    wire.put()
    wire.rank.end(make_finish(report=False))
    assert kinds(wire.step()) == [Batch, Finish, Hello]
    wire.step(Welcome(1, 0))
    assert not wire.rank.is_over
    wire.step(Ack(1), Welcome(1, 1))
    assert wire.rank.is_over


def test_the_end_is_said_again_to_a_new_aggregator_and_after_silence(wire):
    wire.step()
    wire.step(Welcome(1, 0))
    wire.rank.end(make_finish())
    assert kinds(wire.step()) == [Finish]
    assert kinds(wire.step(Welcome(2, 0))) == [Finish]
    assert kinds(wire.step(after_s=ANSWER_LIMIT_S + 0.1)) == [Hello]
    assert kinds(wire.step(Welcome(2, 0))) == [Finish]


def test_at_the_end_it_asks_sooner_and_a_new_aggregator_gets_its_time_to_store(wire):
    wire.step()
    wire.step(Welcome(1, 0))
    wire.put(20)
    wire.rank.end(make_finish())
    wire.step()
    assert kinds(wire.step(after_s=LAST_ANSWER_LIMIT_S + 0.1)) == [Hello]
    said = wire.step(Welcome(2, 0), after_s=STORE_LIMIT_S)
    assert seqs(said) == list(range(1, 17)) and Finish not in kinds(said)
    said = wire.step(Ack(16), after_s=STORE_LIMIT_S - 0.1)
    *batches, finish = said
    assert seqs(batches) == [17, 18, 19, 20] and finish.after_seq == 20
    assert wire.step(Ack(20)) == []


def test_where_there_is_too_much_to_store_the_end_is_said_in_time_and_no_batch_after_it(wire):
    wire.step()
    wire.step(Welcome(1, 0))
    wire.put(100)
    wire.rank.end(make_finish())
    wire.step()
    said, stored = [], 0
    while Finish not in kinds(said):
        stored += 1
        said = wire.step(Ack(stored), after_s=0.4)
    assert stored == FLUSH_LIMIT_S // 0.4 + 1
    assert wire.step(Ack(stored + 1)) == []
    wire.step(after_s=LAST_ANSWER_LIMIT_S + 0.1)
    said = wire.step(Welcome(1, stored + 1))
    assert seqs(said)[0] == stored + 2 and kinds(said)[-1] is Finish


def test_that_the_aggregator_answers_but_stores_nothing_does_not_put_the_end_off(wire):
    wire.step()
    wire.step(Welcome(1, 0))
    wire.put()
    wire.rank.end(make_finish())
    said = [message for _ in range(4) for message in wire.step(Welcome(1, 0), after_s=0.4)]
    assert Finish in kinds(said)


def test_a_rank_that_wants_no_report_knows_by_a_last_hello_that_it_was_heard(wire):
    wire.step()
    wire.step(Welcome(1, 0))
    wire.rank.end(make_finish(report=False))
    assert kinds(wire.step()) == [Finish, Hello]
    assert not wire.rank.is_over
    wire.step(Welcome(1, 0))
    assert wire.rank.is_over


def test_what_a_full_wire_does_not_take_is_said_at_the_next_exchange(wire):
    wire.step()
    wire.rank.describe(RunFacts(framework="manual"))
    wire.rank.end(make_finish())
    wire.takes = False
    assert wire.step(Welcome(1, 0)) == []
    wire.takes = True
    assert kinds(wire.step()) == [Describe, Finish]


def test_a_line_for_the_terminal_is_told_once_also_where_a_verdict_without_one_follows(wire):
    wire.step()
    with_line = msgspec.structs.replace(VERDICT, line="INPUT BOUND | 5 steps")
    wire.step(Welcome(1, 0), Ack(0, with_line), Ack(0, VERDICT))
    assert wire.rank.take_line() == "INPUT BOUND | 5 steps"
    assert wire.rank.take_line() is None
