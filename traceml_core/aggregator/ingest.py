"""What ranks say goes into the history, and they hear what of it is safe."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from traceml_core.core.rows import Row
from traceml_core.history.writer import KEEP_ROWS, HistoryWriter, SequenceGapError
from traceml_core.loggers.error_log import FAILURES, get_error_logger, report_failure
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import (
    Ack,
    Batch,
    Describe,
    Finish,
    FromAggregator,
    FromRank,
    Hello,
    RunStatus,
    Verdict,
    Welcome,
)

# Batches share a transaction for this long at most: a rank that hears nothing for 2 s sends everything again.
GROUP_S = 0.1
REOPEN_INTERVAL_S = 1.0
# Ranks whose aggregator has died notice that after 2 s of silence, and say hello to its successor.
RETURN_LIMIT_S = 3.0

_logger = get_error_logger("ingest")

Send = Callable[[bytes, FromAggregator], None]


class Ingest:
    """Answers hello, batch, describe and finish. Nothing is acked before it is committed.

    What cannot be written now, because the disk is full or the folder is gone, is not acked: its rank keeps it and
    sends it again. Facts and endings are said only once, so they are kept here until they are written; an ending
    counts once the batches before it are committed.
    """

    def __init__(self, path: Path, row_types: Sequence[type[Row]], send: Send, keep_rows: int = KEEP_ROWS) -> None:
        """Open the history at `path`, which keeps so many last rows; where that fails, try again later."""
        self.verdict: Verdict | None = None
        self.report_requests: dict[bytes, Finish] = {}
        self.changes = 0
        self._path = path
        self._row_types = row_types
        self._keep_rows = keep_rows
        self._send = send
        self._aggregator = secrets.randbits(63)
        self._ranks: dict[bytes, tuple[int, int]] = {}
        self._running: dict[int, int] = {}
        self._acks: dict[bytes, int] = {}
        self._facts: dict[int, RunFacts] = {}
        self._finishes: dict[bytes, Finish] = {}
        self._early: dict[bytes, Finish] = {}
        self._heard_finishes: dict[bytes, Finish] = {}
        self._away: dict[int, int] = {}
        self._started_at = time.monotonic()
        self._endings: dict[int, RunStatus] = {}
        self._verdict_sent: dict[bytes, Verdict] = {}
        self._opened_at = 0.0
        self._writer: HistoryWriter | None = None
        self._open()

    @property
    def running(self) -> frozenset[int]:
        """The ranks that said hello and have not finished."""
        return frozenset(self._running)

    @property
    def away(self) -> frozenset[int]:
        """The ranks that said hello to an aggregator before this one, have not finished, and may still come back."""
        if self._away and time.monotonic() - self._started_at > RETURN_LIMIT_S:
            self._away.clear()
        return frozenset(self._away)

    @property
    def ending(self) -> RunStatus:
        """How the run has ended, if it has: as its ranks said; interrupted where the owner, rank 0, said nothing."""
        endings = set(self._endings.values()) | ({"interrupted"} if 0 not in self._endings else set())
        return "failed" if "failed" in endings else "interrupted" if "interrupted" in endings else "completed"

    def take(self, messages: Sequence[tuple[bytes, FromRank]]) -> None:
        """Handle messages in order; those of `GROUP_S` share a transaction."""
        if self._writer is None and messages:
            self._open()
        began = time.monotonic()
        for peer, message in messages:
            self._handle(peer, message)
            if time.monotonic() - began > GROUP_S:
                self.commit()
                began = time.monotonic()
        self.commit()

    def commit(self) -> None:
        """Commit what was written, then ack it; then what has ended with that."""
        self._commit()
        if self._end_early():
            self._commit()

    def _commit(self) -> None:
        if self._writer is None:
            return
        try:
            for rank, facts in self._facts.items():
                self._writer.describe(rank, facts)
            for finish in self._finishes.values():
                self._writer.finish(finish)
            self._writer.commit()
        except sqlite3.Error as error:
            self._undone(error)
            return
        self.changes += bool(self._facts or self._finishes or self._acks)
        self._facts.clear()
        self._finishes.clear()
        for peer, seq in self._acks.items():
            self._send(peer, Ack(seq, self._news_for(peer)))
        self._acks.clear()

    def keep_failures(self, others: Mapping[str, int]) -> None:
        """Move what failed in this process, and `others`, into the history, where the report finds it."""
        FAILURES.update(others)
        # A copy, made at once: the report thread may count something new at any moment.
        failures = {edge: count for edge, count in dict(FAILURES).items() if count}
        if self._writer is None or not failures:
            return
        try:
            self._writer.failed(failures)
            self._writer.commit()
            FAILURES.subtract(failures)  # another thread may have counted on meanwhile
        except sqlite3.Error as error:
            self._undone(error)

    def close(self, *, synced: bool = True) -> None:
        """Commit and close the history; what a rank says after that opens it again. `synced`: see the writer's."""
        self.commit()
        if self._writer is not None:
            self._writer.close(synced=synced)
            self._writer = None
            self._opened_at = 0.0

    def _open(self) -> None:
        if self._opened_at and time.monotonic() - self._opened_at < REOPEN_INTERVAL_S:
            return
        self._opened_at = time.monotonic()
        try:
            self._writer = HistoryWriter(self._path, self._row_types, self._keep_rows)
            if not self._ranks:
                self._learn(self._writer)
        except sqlite3.Error as error:
            report_failure(_logger, "opening the history", error)

    def _learn(self, writer: HistoryWriter) -> None:
        """What an aggregator before this one has been told: how ranks ended, and who has not."""
        for rank, incarnation, status in writer.statuses():
            self._away.pop(rank, None)
            self._endings.pop(rank, None)
            if status == "running":
                self._away[rank] = incarnation
            else:
                self._endings[rank] = status

    def _handle(self, peer: bytes, message: FromRank) -> None:
        if isinstance(message, Finish):
            self._early.pop(peer, None)
            if message.after_seq:
                self._early[peer] = message
            else:
                self._finish(peer, message)
        elif isinstance(message, Describe):
            self._facts[self._ranks[peer][0] if peer in self._ranks else 0] = message.facts
        elif self._writer is not None:
            try:
                self._write(self._writer, peer, message)
            except SequenceGapError:
                return  # what came before it was lost with a transaction: no ack, and its rank sends both again
            except sqlite3.Error as error:
                self._undone(error)

    def _write(self, writer: HistoryWriter, peer: bytes, message: Hello | Batch) -> None:
        if isinstance(message, Hello):
            identity = message.identity
            self.commit()
            watermark = writer.hello(identity, message.started_unix_ns)
            self._away.pop(identity.rank, None)
            if peer not in self._ranks:
                self._ranks[peer] = (identity.rank, identity.incarnation)
                self._running[identity.rank] = identity.incarnation
                self._endings.pop(identity.rank, None)
                self.changes += 1
            self._send(peer, Welcome(self._aggregator, watermark))
            return
        if writer.write(message):
            self._heard_finishes.pop(peer, None)
        # A batch that was stored before is acked again: its rank did not hear it the first time.
        self._acks[peer] = max(self._acks.get(peer, 0), message.seq)

    def _end_early(self) -> bool:
        """End the ranks whose last batch is committed now; whether there was one."""
        if self._writer is None or not self._early:
            return False
        watermark = self._writer.watermark
        ended = [peer for peer, one in self._early.items() if watermark(one.rank, one.incarnation) >= one.after_seq]
        for peer in ended:
            self._finish(peer, self._early.pop(peer))
        return bool(ended)

    def _finish(self, peer: bytes, finish: Finish) -> None:
        if finish.report:
            self.report_requests[peer] = finish
        if self._heard_finishes.get(peer) == finish:
            return  # said again by a rank that waits for the report; nothing is new
        self._finishes[peer] = self._heard_finishes[peer] = finish
        self._endings[finish.rank] = finish.status
        if self._running.get(finish.rank) == finish.incarnation:
            del self._running[finish.rank]

    def _undone(self, error: sqlite3.Error) -> None:
        self._acks.clear()
        report_failure(_logger, "writing the history", error)

    def _news_for(self, peer: bytes) -> Verdict | None:
        """The newest live verdict, for rank 0 that has not heard it yet."""
        if (
            self.verdict is None
            or self._ranks.get(peer, (None,))[0] != 0
            or self._verdict_sent.get(peer) == self.verdict
        ):
            return None
        self._verdict_sent[peer] = self.verdict
        return self.verdict
