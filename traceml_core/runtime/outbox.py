"""What a rank has measured and the aggregator has not stored yet: in order, bounded, and sent again when need be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import msgspec

from traceml_core.core.rows import Row
from traceml_core.telemetry.messages import Batch, Chunk, encode

IN_FLIGHT_LIMIT = 16
ROWS_PER_CHUNK = 2_000
BATCH_LIMIT_BYTES = 512 * 1024
LIMIT_BYTES = 64 * 1024 * 1024
# libzmq may hold copies of what is under way: at most its send queue of 32 messages.
LIBZMQ_BYTES = 32 * BATCH_LIMIT_BYTES


class SizedChunk(msgspec.Struct, frozen=True):
    """Encoded rows of one table, and how many rows and bytes they are."""

    chunk: Chunk
    rows: int
    size_bytes: int


class _Waiting(msgspec.Struct, frozen=True):
    """A batch that is not acknowledged, and how many rows and bytes it is."""

    batch: Batch
    rows: int
    size_bytes: int


class Outbox:
    """Numbered batches from the first one that is not acknowledged on. At most 16 of them are under way."""

    def __init__(self, rank: int, incarnation: int, limit_bytes: int = LIMIT_BYTES - LIBZMQ_BYTES) -> None:
        """An empty outbox that holds at most `limit_bytes` of rows."""
        self.rows_dropped = 0
        self.rows_taken = 0
        self._rank = rank
        self._incarnation = incarnation
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._seq = 0
        self._batches: deque[_Waiting] = deque()
        self._in_flight = 0

    def put(self, chunks: Sequence[SizedChunk], elapsed_ns: int, rows_dropped: int, failures: dict[str, int]) -> None:
        """Take rows in as batches; without rows a batch that tells the rest. What goes beyond the bound is dropped.

        `rows_dropped` were dropped before they came here.
        """
        kept = []
        for chunk in chunks:
            if self._bytes + chunk.size_bytes > self._limit_bytes or chunk.size_bytes > BATCH_LIMIT_BYTES:
                self.rows_dropped += chunk.rows
            else:
                kept.append(chunk)
                self.rows_taken += chunk.rows
                self._bytes += chunk.size_bytes
        if chunks and not kept:
            return
        dropped = rows_dropped + self.rows_dropped
        for group in _batched(kept):
            batch = Batch(
                self._rank,
                self._incarnation,
                self._seq + 1,
                elapsed_ns,
                dropped,
                dict(failures),
                [part.chunk for part in group],
            )
            self._seq += 1
            size = sum(part.size_bytes for part in group)
            self._batches.append(_Waiting(batch, sum(part.rows for part in group), size))

    def send(self, send: Callable[[Batch], bool]) -> None:
        """Hand batches to `send` until it takes no more or 16 are under way."""
        for waiting in list(islice(self._batches, self._in_flight, IN_FLIGHT_LIMIT)):
            if not send(waiting.batch):
                return
            self._in_flight += 1

    def acknowledge(self, seq: int) -> None:
        """Everything up to `seq` is stored."""
        while self._batches and self._batches[0].batch.seq <= seq:
            self._bytes -= self._batches.popleft().size_bytes
            self._in_flight = max(self._in_flight - 1, 0)

    def rewind(self) -> None:
        """What was under way may be lost: send it again, in order."""
        self._in_flight = 0

    @property
    def last_seq(self) -> int:
        """The number of the newest batch."""
        return self._seq

    @property
    def is_under_way(self) -> bool:
        """Whether every batch that is not acknowledged has been handed over."""
        return self._in_flight == len(self._batches)

    @property
    def waits(self) -> bool:
        """Whether batches are under way that nobody has acknowledged."""
        return self._in_flight > 0

    @property
    def rows(self) -> int:
        """How many rows are not stored yet."""
        return sum(waiting.rows for waiting in list(self._batches))

    def __len__(self) -> int:
        return len(self._batches)


def sized_chunks(rows: Iterable[Row]) -> list[SizedChunk]:
    """Encode rows, grouped by table in order of first appearance, in parts that fit into a batch.

    Raises:
        TypeError: a row holds something that has no encoding.
    """
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.table, []).append(row)
    return [chunk for table, table_rows in tables.items() for chunk in _split(table, table_rows)]


def _split(table: str, rows: Sequence[Row]) -> list[SizedChunk]:
    chunks = []
    for start in range(0, len(rows), ROWS_PER_CHUNK):
        part = rows[start : start + ROWS_PER_CHUNK]
        payload = encode(part)
        if len(payload) > BATCH_LIMIT_BYTES and len(part) > 1:
            middle = len(part) // 2
            chunks += [*_split(table, part[:middle]), *_split(table, part[middle:])]
        else:
            chunks.append(SizedChunk(Chunk(table, msgspec.Raw(payload)), len(part), len(payload)))
    return chunks


def _batched(chunks: Sequence[SizedChunk]) -> list[list[SizedChunk]]:
    """Group chunks, in order, into batches within the bound; one group without chunks where there are none."""
    groups: list[list[SizedChunk]] = [[]]
    size = 0
    for chunk in chunks:
        if groups[-1] and size + chunk.size_bytes > BATCH_LIMIT_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(chunk)
        size += chunk.size_bytes
    return groups
