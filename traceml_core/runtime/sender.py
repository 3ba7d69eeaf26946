"""The sender: one thread a rank that runs samplers, sends what they saw, and keeps it until it is stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from traceml_core.core.identity import RankIdentity
from traceml_core.core.rows import Row
from traceml_core.loggers.error_log import FAILURES, fail_open, get_error_logger
from traceml_core.runtime.outbox import Outbox
from traceml_core.samplers.base import BaseSampler
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import (
    Ack,
    Describe,
    Finish,
    FromAggregator,
    Hello,
    Refused,
    Report,
    Verdict,
    Welcome,
)
from traceml_core.transport.client import TelemetryClient
from traceml_core.transport.keys import Ticket

TICK_S = 0.1
CLOSING_TICK_MS = 10
ANSWER_LIMIT_S = 2.0
CLOCK = time.monotonic
logger = get_error_logger("Sender")


class SampledRows:
    """The samplers of one rank, each asked when its interval has passed."""

    def __init__(self, samplers: Sequence[tuple[BaseSampler, float]]) -> None:
        """`samplers` are pairs of a sampler and its interval in seconds; 0 asks at every tick."""
        self._samplers = [(sampler, interval_s) for sampler, interval_s in samplers]
        self._due_s = [0.0] * len(self._samplers)

    def collect(self, now_s: float, every: bool = False) -> list[Row]:
        """The rows of all samplers that are due (`every`: of all)."""
        rows: list[Row] = []
        for index, (sampler, interval_s) in enumerate(self._samplers):
            if every or now_s >= self._due_s[index]:
                self._due_s[index] = now_s + interval_s
                with fail_open(logger, f"sampling with {type(sampler).__name__}"):
                    rows.extend(sampler.sample())
        return rows


class Sender:
    """Runs on a thread of its own from `start` to `stop`; the training thread only sets flags and reads attributes."""

    def __init__(
        self,
        identity: RankIdentity,
        find_ticket: Callable[[threading.Event], Ticket | None],
        make_rows: Callable[[], SampledRows],
        rows_dropped: Callable[[], int],
        elapsed_ns: Callable[[], int],
        keep_aggregator: Callable[[], None],
    ) -> None:
        """A sender that is not started. The callables are the outside world, called on the sender's thread."""
        self.verdict: Verdict | None = None
        self.report: Report | None = None
        self.has_ticket: bool | None = None
        self.was_welcomed = False
        self.cpu_ns = 0
        self.finished = threading.Event()
        self._identity = identity
        self._find_ticket = find_ticket
        self._make_rows = make_rows
        self._rows_dropped = rows_dropped
        self._elapsed_ns = elapsed_ns
        self._keep_aggregator = keep_aggregator
        self._started_unix_ns = time.time_ns()
        self._outbox = Outbox(identity.rank, identity.incarnation)
        self._stopped = threading.Event()
        self._facts: RunFacts | None = None
        self._finish: Callable[[], Finish] | None = None
        self._aggregator: int | None = None
        self._heard_s = CLOCK()
        self._told_silence = False
        self._thread = threading.Thread(target=self._run, name="traceml-sender", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def describe(self, facts: RunFacts) -> None:
        """Have these facts told at the next tick."""
        self._facts = facts

    def finish(self, finish: Callable[[], Finish]) -> None:
        """Send all that there is, then what `finish` makes; `finished` is set once it is answered or hopeless."""
        self._finish = finish

    def stop(self, timeout_s: float) -> bool:
        """End the thread; False where it has not ended within `timeout_s`."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        with fail_open(logger, "sending"):
            ticket = self._find_ticket(self._stopped)
            self.has_ticket = ticket is not None
            if ticket is not None:
                client = TelemetryClient(ticket)
                try:
                    self._serve(client)
                finally:
                    client.close()
        self.finished.set()

    def _serve(self, client: TelemetryClient) -> None:
        rows = self._make_rows()
        self._say_hello(client)
        while not self._stopped.is_set() and self._finish is None:
            self._tick(client, rows.collect(CLOCK()))
            self.cpu_ns = time.thread_time_ns()
            self._pause()
        if self._finish is not None:
            self._close_down(client, rows, self._finish)

    def _pause(self) -> None:
        """Sleep until the next tick, or until there is something to end for. No lock is shared with training."""
        self._stopped.wait(TICK_S)

    def _tick(self, client: TelemetryClient, rows: list[Row]) -> None:
        with fail_open(logger, "keeping the aggregator"):
            self._keep_aggregator()
        with fail_open(logger, "telling the facts"):
            self._tell_facts(client)
        if rows:
            self._outbox.put(rows, self._elapsed_ns(), self._rows_dropped(), FAILURES)
        self._exchange(client, 0)

    def _tell_facts(self, client: TelemetryClient) -> None:
        facts = self._facts
        if facts is not None and self.was_welcomed and client.send(Describe(facts)) and self._facts is facts:
            self._facts = None

    def _exchange(self, client: TelemetryClient, wait_ms: int) -> None:
        """Hear everything there is to hear, then send what may be sent; ask again where nobody answers."""
        message = client.receive(wait_ms)
        while message is not None:
            self._hear(message)
            message = client.receive()
        if self.was_welcomed:
            self._outbox.send(client.send)
        silent_s = CLOCK() - self._heard_s
        if silent_s > ANSWER_LIMIT_S and (self._outbox.waits or not self.was_welcomed):
            self._told_silent()
            self._say_hello(client)

    def _hear(self, message: FromAggregator) -> None:
        self._heard_s = CLOCK()
        if isinstance(message, Welcome):
            self._aggregator = message.aggregator
            self.was_welcomed = True
            self._outbox.acknowledge(message.watermark)
            self._outbox.rewind()
        elif isinstance(message, Ack):
            self._outbox.acknowledge(message.seq)
            self.verdict = message.verdict or self.verdict
        elif isinstance(message, Report):
            self.report = message
        elif isinstance(message, Refused):
            FAILURES["refused"] += 1

    def _say_hello(self, client: TelemetryClient) -> None:
        """Introduce this rank, and ask how much of it is stored."""
        client.send(Hello(self._identity, self._started_unix_ns))
        self._heard_s = CLOCK()

    def _told_silent(self) -> None:
        if not self._told_silence and not self.was_welcomed:
            self._told_silence = True
            FAILURES["no_answer"] += 1
            logger.error("[TraceML] the aggregator has not answered for %g s", ANSWER_LIMIT_S)

    def _close_down(self, client: TelemetryClient, rows: SampledRows, finish: Callable[[], Finish]) -> None:
        self._tick(client, rows.collect(CLOCK(), every=True))
        # The last word on time and drops travels in a batch of its own, even if there is no row left.
        self._outbox.put([], self._elapsed_ns(), self._rows_dropped(), FAILURES)
        while not self._stopped.is_set() and (len(self._outbox) or not self.was_welcomed):
            with fail_open(logger, "keeping the aggregator"):
                self._keep_aggregator()
            self._exchange(client, CLOSING_TICK_MS)
        with fail_open(logger, "telling the facts"):
            self._tell_facts(client)
        message = finish()
        asked_s = -ANSWER_LIMIT_S
        while not self._stopped.is_set() and self.report is None:
            if CLOCK() - asked_s >= ANSWER_LIMIT_S:
                client.send(message)
                asked_s = CLOCK()
                if not message.report:
                    break
            self._exchange(client, CLOSING_TICK_MS)
        self._exchange(client, CLOSING_TICK_MS)
