"""The wire: what ranks and the aggregator say to each other, as tagged msgpack arrays.

Rank → aggregator: `Hello`, `Batch`, `Describe`, `Finish`. Aggregator → rank: `Welcome`, `Ack`, `Refused`, `Report`.
One message is one ZeroMQ frame.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from traceml_core.core.identity import RankIdentity
from traceml_core.core.integers import Count, Integer
from traceml_core.telemetry.facts import RunFacts

RunStatus = Literal["running", "completed", "failed", "interrupted"]
Severity = Literal["info", "warning", "critical"]


class RunError(msgspec.Struct, frozen=True, array_like=True):
    """What ended a failed or interrupted run. `message` is null when the user asked not to record it."""

    type: str
    message: str | None = None
    step: Integer | None = None
    global_step: Integer | None = None


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """The diagnosis in brief, as it rides on acks and goes to the trainer's loggers.

    `metrics` maps names under `traceml/` to numbers, such as `traceml/forward_ms`. `line` is what is now to be said in
    the training terminal, in modes that say something there; null most of the time.
    """

    kind: str
    severity: Severity
    summary: str
    action: str
    metrics: dict[str, float]
    line: str | None = None

    @property
    def words(self) -> str:
        """The verdict as trackers that hold text are told it."""
        return f"{self.kind} ({self.severity}): {self.summary} {self.action}"


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """A rank's first word on every connection, and its question for the watermark. Answered by `Welcome`."""

    identity: RankIdentity
    started_unix_ns: Integer


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Rows of one table, encoded as one msgpack array, so that each table is decoded by its own typed decoder."""

    table: str
    rows: msgspec.Raw


class Batch(msgspec.Struct, frozen=True, array_like=True, tag="batch"):
    """Rows of one rank. `seq` counts from 1 per (rank, incarnation). Answered by `Ack` once committed.

    `elapsed_ns` is the run's wall time so far on the rank's own clock, `rows_dropped` the rows that the rank dropped
    since its start because a bound was reached, `failures` what failed there since its start, by edge.
    """

    rank: Count
    incarnation: Integer
    seq: Count
    elapsed_ns: Integer
    rows_dropped: Count
    failures: dict[str, Count]
    chunks: list[Chunk]


class Describe(msgspec.Struct, frozen=True, array_like=True, tag="describe"):
    """The facts of the run as rank 0 knows them now; replaces what was told before."""

    facts: RunFacts


class Finish(msgspec.Struct, frozen=True, array_like=True, tag="finish"):
    """This rank has ended: it counts once the batches up to seq `after_seq` are committed.

    When `report` is asked for, answered by `Report`. Where its rows cannot be stored, the rank says it again with the
    `after_seq` 0: the report is of what there is. `rows_made` is how many rows it had to tell in its life: what has not
    come in of them when this counts is lost. `wall_ns` runs from the first framework hook to the close of the run, by a
    clock independent of the phase stack; `ended_ns` is that close by the machine's monotonic clock, where the
    aggregator is a process of the same machine and can tell by it how long it is waited for. `columns` and `color` say
    how the card is to be drawn; `style` is the setting `report`.
    """

    rank: Count
    incarnation: Integer
    status: RunStatus
    error: RunError | None
    wall_ns: Integer
    overhead_ns_per_step: float
    report: bool
    style: Literal["full", "line", "off"]
    columns: Count
    color: bool
    ended_ns: Integer | None = None
    after_seq: Count = 0
    rows_made: Count | None = None


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="welcome"):
    """Answer to `Hello`. `aggregator` is drawn at random at its start; rows up to seq `watermark` are committed."""

    aggregator: int
    watermark: int


class Ack(msgspec.Struct, frozen=True, array_like=True, tag="ack"):
    """Batches up to `seq` are committed. `verdict` is the newest live one, to rank 0 only."""

    seq: int
    verdict: Verdict | None = None


NO_HELLO = "no hello"


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """A message was not accepted, and why."""

    reason: str


class Report(msgspec.Struct, frozen=True, array_like=True, tag="report"):
    """The end of the run: the card as text, and the verdict for the trainer's loggers."""

    card: str
    verdict: Verdict | None


FromRank = Hello | Batch | Describe | Finish
FromAggregator = Welcome | Ack | Refused | Report

encode = msgspec.msgpack.Encoder().encode
decode_from_rank = msgspec.msgpack.Decoder(FromRank).decode
decode_from_aggregator = msgspec.msgpack.Decoder(FromAggregator).decode
