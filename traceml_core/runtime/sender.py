"""The sender: one thread a rank that runs samplers, sends what they saw, and keeps it until it is stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from traceml_core.core.identity import RankIdentity
from traceml_core.loggers.error_log import FAILURES, fail_open, get_error_logger
from traceml_core.runtime.conversation import ANSWER_LIMIT_S, Conversation
from traceml_core.runtime.outbox import Outbox, SizedChunk, sized_chunks
from traceml_core.samplers.base import BaseSampler, GlancingSampler
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import Finish, Report, Verdict
from traceml_core.transport.client import TelemetryClient
from traceml_core.transport.keys import Ticket

TICK_S = 0.1
# All ranks of a job talk to one aggregator, to which a message costs much and a row in it little. Beyond so many ranks
# they talk more rarely, down to twice a second: one that dies still takes less than the last 2 s with it.
RANKS_AT_FULL_PACE = 256
LONGEST_TICK_S = 0.5
CLOSING_TICK_MS = 10
LINGER_MS = 200
CLOCK = time.monotonic
logger = get_error_logger("Sender")


def tick_s(world_size: int) -> float:
    """How long a rank of a job this large collects rows before it sends them."""
    return min(max(TICK_S * world_size / RANKS_AT_FULL_PACE, TICK_S), LONGEST_TICK_S)


class SampledRows:
    """The samplers of one rank, each asked when its interval has passed."""

    def __init__(self, samplers: Sequence[tuple[BaseSampler, float]]) -> None:
        """`samplers` are pairs of a sampler and its interval in seconds; 0 asks at every tick."""
        self._samplers = [(sampler, interval_s) for sampler, interval_s in samplers]
        self._due_s = [0.0] * len(self._samplers)
        self._glancing = [sampler for sampler, _ in self._samplers if isinstance(sampler, GlancingSampler)]

    @property
    def glances(self) -> int:
        """How often to `glance` before the next `collect`."""
        return max((sampler.glances for sampler in self._glancing), default=0)

    def glance(self) -> None:
        """Let those samplers look that want to look more often than they are asked for rows."""
        for sampler in self._glancing:
            if sampler.glances:
                with fail_open(logger, f"glancing with {type(sampler).__name__}"):
                    sampler.glance()

    def collect(self, now_s: float, every: bool = False) -> list[SizedChunk]:
        """The rows of all samplers that are due (`every`: of all). One that fails costs no other one its rows."""
        chunks: list[SizedChunk] = []
        for index, (sampler, interval_s) in enumerate(self._samplers):
            if every or now_s >= self._due_s[index]:
                self._due_s[index] = now_s + interval_s
                with fail_open(logger, f"sampling with {type(sampler).__name__}"):
                    chunks += sized_chunks(sampler.sample())
        return chunks


class Sender:
    """Runs on a thread of its own from `start` to `stop`; the training thread only sets flags and reads attributes."""

    def __init__(
        self,
        identity: RankIdentity,
        find_ticket: Callable[[threading.Event], Ticket | None],
        make_rows: Callable[[], SampledRows],
        rows_dropped: Callable[[], int],
        elapsed_ns: Callable[[], int],
        keep_aggregator: Callable[[], bool],
        tell_silence: Callable[[], None],
        end_joining: Callable[[], None] = lambda: None,
        tell_line: Callable[[str], None] = lambda line: None,
        end_turn: Callable[[float | None], None] = lambda next_s: None,
    ) -> None:
        """A sender that is not started. The callables are the outside world, called on the sender's thread.

        `find_ticket` is given an event that is set when the run is about to end. `keep_aggregator` starts a dead
        aggregator again and is false once that is hopeless; `tell_silence` is called once, where the first hello was
        not answered for 2 s; `end_joining` once training is over, before the last rows are sent; `tell_line` with each
        line that a display has for the terminal, while training goes on; `end_turn` at the end of each turn of this
        thread, with the seconds until the next one, null after the last.
        """
        self.has_ticket: bool | None = None
        self.finished = threading.Event()
        self._identity = identity
        self._find_ticket = find_ticket
        self._make_rows = make_rows
        self._rows_dropped = rows_dropped
        self._elapsed_ns = elapsed_ns
        self._keep_aggregator = keep_aggregator
        self._tell_silence = tell_silence
        self._end_joining = end_joining
        self._tell_line = tell_line
        self._end_turn = end_turn
        self._outbox = Outbox(identity.rank, identity.incarnation)
        self._facts: RunFacts | None = None
        self._finish: Finish | None = None
        self._tick_s = tick_s(identity.world_size)
        self._conversation: Conversation | None = None
        self._stopped = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traceml-sender", daemon=True)

    @property
    def verdict(self) -> Verdict | None:
        """The newest live verdict."""
        return None if self._conversation is None else self._conversation.verdict

    @property
    def report(self) -> Report | None:
        """The aggregator's answer to `finish`, once it is there."""
        return None if self._conversation is None else self._conversation.report

    @property
    def rows_unstored(self) -> int:
        """Rows that the aggregator has not stored yet. Once the thread has ended, they are lost."""
        return self._outbox.rows

    def start(self) -> None:
        """Begin.

        Raises:
            RuntimeError: no thread can be started.
        """
        self._thread.start()

    def describe(self, facts: RunFacts) -> None:
        """Have these facts told at the next tick."""
        self._facts = facts

    def finish(self, finish: Finish) -> None:
        """Send all that there is, then `finish`; `finished` is set once it is answered or hopeless."""
        self._finish = finish
        self._woken.set()

    def stop(self, timeout_s: float) -> bool:
        """End the thread; False where it has not ended within `timeout_s`."""
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        with fail_open(logger, "sending"):
            ticket = self._find_ticket(self._woken)
            self.has_ticket = ticket is not None
            if ticket is not None:
                self._serve(ticket)
        self.finished.set()

    def _serve(self, ticket: Ticket) -> None:
        self._end_turn(0.0)  # the first one may be late as well
        client = TelemetryClient(ticket)
        try:
            conversation = self._conversation = Conversation(client, self._identity, self._outbox)
            rows = self._make_rows()
            began_s = CLOCK()
            while not self._woken.is_set():
                self._tick(conversation, rows.collect(CLOCK()))
                if not conversation.is_welcome and CLOCK() - began_s > ANSWER_LIMIT_S:
                    began_s = float("inf")
                    self._told_silence()
                self._end_turn(self._tick_s)
                self._pause(rows)
            with fail_open(logger, "telling the other ranks of the end"):
                self._end_joining()
            if self._finish is not None:
                self._close_down(conversation, rows, self._finish)
                self.finished.set()  # training goes on while the connection closes
        finally:
            self._end_turn(None)
            client.close(LINGER_MS)

    def _pause(self, rows: SampledRows) -> None:
        """Sleep until the next tick, with glances in between for as long as there is time."""
        until_s = CLOCK() + self._tick_s
        glances = rows.glances
        for _ in range(glances):
            if self._woken.wait(self._tick_s / (glances + 1)) or CLOCK() >= until_s:
                return
            rows.glance()
        self._woken.wait(until_s - CLOCK())

    def _tick(self, conversation: Conversation, chunks: list[SizedChunk]) -> None:
        self._keep()
        with fail_open(logger, "sending"):
            if chunks:
                self._put(chunks)
            self._exchange(conversation, 0)
            line = conversation.take_line()
            if line is not None and not self._woken.is_set():
                self._tell_line(line)

    def _keep(self) -> bool:
        with fail_open(logger, "keeping the aggregator"):
            return self._keep_aggregator()
        return True

    def _put(self, chunks: list[SizedChunk]) -> None:
        self._outbox.put(chunks, self._elapsed_ns(), self._rows_dropped(), FAILURES)

    def _exchange(self, conversation: Conversation, wait_ms: int) -> None:
        if self._facts is not None:
            conversation.describe(self._facts)
        conversation.exchange(wait_ms)

    def _told_silence(self) -> None:
        FAILURES["no_answer"] += 1
        logger.error("[TraceML] the aggregator has not answered for %g s", ANSWER_LIMIT_S)
        with fail_open(logger, "telling of silence"):
            self._tell_silence()

    def _close_down(self, conversation: Conversation, rows: SampledRows, finish: Finish) -> None:
        seq = self._outbox.last_seq
        self._put(rows.collect(CLOCK(), every=True))
        if self._outbox.last_seq == seq:
            self._put([])  # the last word on time and drops, also where no row is left or fits
        made = self._outbox.rows_taken + self._outbox.rows_dropped + self._rows_dropped()
        conversation.end(msgspec.structs.replace(finish, rows_made=made))
        with fail_open(logger, "sending"):
            self._exchange(conversation, 0)
        while not self._stopped.is_set() and not conversation.is_over and self._keep():
            self._exchange(conversation, CLOSING_TICK_MS)
