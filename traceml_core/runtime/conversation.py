"""What one rank and the aggregator say to each other, so that every batch is stored once whoever dies between.

A DEALER does not tell that it was connected anew. So a rank asks again (`Hello`) where it hears nothing for 2 s or is
refused as a stranger, and the answer (`Welcome`) names the aggregator and what of this rank it has stored. What lies
after that is sent again, in order, and so are the facts and the end of the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from traceml_core.core.identity import RankIdentity
from traceml_core.loggers.error_log import FAILURES
from traceml_core.runtime.outbox import Outbox
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import (
    NO_HELLO,
    Ack,
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

ANSWER_LIMIT_S = 2.0
# At the end training waits, for less than 5 s in all: time enough for a new aggregator only if it is noticed soon.
LAST_ANSWER_LIMIT_S = 0.5
REFUSED_INTERVAL_S = 0.25
STORE_LIMIT_S = 1.0
FLUSH_LIMIT_S = 3.0


class Client(Protocol):
    """The rank's end of the wire."""

    def send(self, message: FromRank) -> bool:
        """Queue a message; False where the queue is full."""
        ...

    def receive(self, timeout_ms: int = 0) -> FromAggregator | None:
        """What the aggregator says within the time, if anything."""
        ...


class Conversation:
    """One rank's side of it. Used on one thread; any thread may read the attributes and call `describe`."""

    def __init__(
        self, client: Client, identity: RankIdentity, outbox: Outbox, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Say hello at the first exchange, then what `outbox` holds. `now` is in seconds."""
        self.verdict: Verdict | None = None
        self.line: str | None = None
        self.report: Report | None = None
        self.is_welcome = False
        self.is_over = False
        self._client = client
        self._outbox = outbox
        self._now = now
        self._hello = Hello(identity, time.time_ns())
        self._aggregator: int | None = None
        self._asked_s: float | None = None
        self._asks_again = False
        self._was_refused = False
        self._heard_s = now()
        self._facts: RunFacts | None = None
        self._told_facts: RunFacts | None = None
        self._finish: Finish | None = None
        self._stored_s = self._ends_since_s = 0.0
        self._told_finish = False
        self._insists = False

    def take_line(self) -> str | None:
        """What is to be said in the terminal since this was last asked, if anything."""
        line, self.line = self.line, None
        return line

    def describe(self, facts: RunFacts) -> None:
        """Have these facts told, and told again to every new aggregator."""
        self._facts = facts

    def end(self, finish: Finish) -> None:
        """Say this right after the last batch; it counts once they all are stored. `is_over`: its report is here.

        Where batches are not stored for a second (the disk is full), or there are too many for the time that is left,
        it is said again so that it counts all the same: the report is of what there is. No batch follows that, so that
        what is missing of the rows it tells of is lost, unless the rank is asked for more.
        """
        self._finish = finish
        self._stored_s = self._ends_since_s = self._now()

    def exchange(self, wait_ms: int = 0) -> None:
        """Hear everything there is to hear, waiting `wait_ms` for it, then say what is to be said now."""
        message = self._client.receive(wait_ms)
        while message is not None:
            self._hear(message)
            message = self._client.receive()
        if self._is_to_ask():
            self._ask()
        if self.is_welcome:
            self._say()

    def _hear(self, message: FromAggregator) -> None:
        self._heard_s = self._now()
        if isinstance(message, Welcome):
            self._hear_welcome(message)
        elif isinstance(message, Ack):
            self._acknowledge(message.seq)
            if message.verdict is not None:
                self.verdict, self.line = message.verdict, message.verdict.line or self.line
        elif isinstance(message, Report):
            self.report = message
            self.is_over = True
        elif isinstance(message, Refused):
            self._was_refused = True
            if message.reason != NO_HELLO:  # else a new aggregator, or a new connection, does not know this rank yet
                FAILURES["refused"] += 1

    def _hear_welcome(self, welcome: Welcome) -> None:
        self.is_welcome = True
        self._acknowledge(welcome.watermark)
        if welcome.aggregator != self._aggregator:
            self._stored_s = self._now()  # a new one has had no time yet
        if self._asks_again or welcome.aggregator != self._aggregator:
            self._aggregator = welcome.aggregator
            self._outbox.rewind()
            self._told_facts = None
            self._told_finish = self._insists = False
        elif self._told_finish and self._finish is not None and not self._finish.report:
            # The hello that was said after `Finish` is answered, so that was heard, and counts if all is stored.
            self.is_over = self._insists or not len(self._outbox)
        self._asks_again = False

    def _acknowledge(self, seq: int) -> None:
        waiting = len(self._outbox)
        self._outbox.acknowledge(seq)
        if len(self._outbox) < waiting:
            self._stored_s = self._now()

    def _is_to_ask(self) -> bool:
        if self._asked_s is None:
            return True
        now = self._now()
        if self._was_refused:
            return now - self._asked_s > REFUSED_INTERVAL_S
        waits = self._outbox.waits or not self.is_welcome or (self._told_finish and not self.is_over)
        limit_s = ANSWER_LIMIT_S if self._finish is None else LAST_ANSWER_LIMIT_S
        return waits and now - max(self._heard_s, self._asked_s) > limit_s

    def _ask(self) -> None:
        """Introduce this rank, and ask how much of it is stored."""
        self._asks_again = self._asked_s is not None
        self._was_refused = False
        self._asked_s = self._now()
        self._client.send(self._hello)

    def _say(self) -> None:
        facts = self._facts
        if facts is not None and facts is not self._told_facts and self._client.send(Describe(facts)):
            self._told_facts = facts
        if not self._insists:
            self._outbox.send(self._client.send)
        if self._finish is not None:
            self._say_finish(self._finish)

    def _say_finish(self, finish: Finish) -> None:
        """Once behind the last batch, and once more where the batches are not stored."""
        insists = self._is_hopeless()
        is_due = not self._insists if insists else not self._told_finish and self._outbox.is_under_way
        after_seq = 0 if insists else self._outbox.last_seq
        if is_due and self._client.send(msgspec.structs.replace(finish, after_seq=after_seq)):
            self._told_finish, self._insists = True, insists
            if not finish.report:
                self._client.send(self._hello)

    def _is_hopeless(self) -> bool:
        """Whether batches wait to be stored, and none is for too long, or there is no time left for them."""
        now = self._now()
        waits_too_long = now - self._stored_s > STORE_LIMIT_S or now - self._ends_since_s > FLUSH_LIMIT_S
        return len(self._outbox) > 0 and waits_too_long
