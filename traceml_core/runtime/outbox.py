"""What a rank has measured and the aggregator has not stored yet: in order, bounded, and sent again when need be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from traceml_core.core.rows import Row
from traceml_core.telemetry.messages import Batch, Chunk, chunks_of

IN_FLIGHT_LIMIT = 16
ROWS_PER_BATCH = 4_000


class Outbox:
    """Numbered batches from the first one that is not acknowledged on. At most 16 of them are under way."""

    def __init__(self, rank: int, incarnation: int, limit_bytes: int = 64 * 1024 * 1024) -> None:
        """An empty outbox that holds at most `limit_bytes` of rows."""
        self.rows_dropped = 0
        self._rank = rank
        self._incarnation = incarnation
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._seq = 0
        self._batches: deque[Batch] = deque()
        self._in_flight = 0

    def put(self, rows: Sequence[Row], elapsed_ns: int, rows_dropped: int, failures: dict[str, int]) -> None:
        """Take rows in; what goes beyond the bound is dropped and counted. `rows_dropped` were dropped before."""
        for start in range(0, max(len(rows), 1), ROWS_PER_BATCH):
            part = rows[start : start + ROWS_PER_BATCH]
            chunks = chunks_of(part)
            size = _size(chunks)
            if self._bytes + size > self._limit_bytes:
                self.rows_dropped += len(part)
                continue
            self._seq += 1
            self._bytes += size
            dropped = rows_dropped + self.rows_dropped
            self._batches.append(
                Batch(self._rank, self._incarnation, self._seq, elapsed_ns, dropped, dict(failures), chunks)
            )

    def send(self, send: Callable[[Batch], bool]) -> None:
        """Hand batches to `send` until it takes no more or 16 are under way."""
        for batch in list(islice(self._batches, self._in_flight, IN_FLIGHT_LIMIT)):
            if not send(batch):
                return
            self._in_flight += 1

    def acknowledge(self, seq: int) -> None:
        """Everything up to `seq` is stored."""
        while self._batches and self._batches[0].seq <= seq:
            self._bytes -= _size(self._batches.popleft().chunks)
            self._in_flight = max(self._in_flight - 1, 0)

    def rewind(self) -> None:
        """What was under way may be lost: send it again, in order."""
        self._in_flight = 0

    @property
    def waits(self) -> bool:
        """Whether batches are under way that nobody has acknowledged."""
        return self._in_flight > 0

    def __len__(self) -> int:
        return len(self._batches)


def _size(chunks: Sequence[Chunk]) -> int:
    return sum(len(bytes(chunk.rows)) for chunk in chunks)
