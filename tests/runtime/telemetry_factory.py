"""Messages and rows as a rank sends them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from traceml_core.core.identity import RankIdentity
from traceml_core.core.rows import Row, columns_of
from traceml_core.runtime.outbox import sized_chunks
from traceml_core.samplers.step_time import StepTimeRow
from traceml_core.telemetry.messages import Batch, Finish, Hello


def make_identity(rank: int = 0, incarnation: int = 7, **fields: Any) -> RankIdentity:
    return RankIdentity(rank=rank, local_rank=rank, incarnation=incarnation, **fields)


def make_hello(rank: int = 0, incarnation: int = 7) -> Hello:
    return Hello(make_identity(rank, incarnation), time.time_ns())


def make_step_row(step: int | None = 1, **values: Any) -> StepTimeRow:
    """A step of 10 ms; the partition is all forward unless said otherwise."""
    row = {column.name: None if column.nullable else 0 for column in columns_of(StepTimeRow)}
    row |= {"step": step, "started_ns": 1_760_000_000_000_000_000, "interval_ns": 10_000_000, "micro_batches": 1}
    return StepTimeRow(**{**row, "forward_ns": 10_000_000, **values})


def make_batch(seq: int, rows: Sequence[Row] = (), *, rank: int = 0, incarnation: int = 7, **fields: Any) -> Batch:
    values = {"elapsed_ns": seq * 1_000_000, "rows_dropped": 0, "failures": {}, **fields}
    values.setdefault("chunks", [sized.chunk for sized in sized_chunks(rows)])
    return Batch(rank=rank, incarnation=incarnation, seq=seq, **values)


def make_finish(rank: int = 0, incarnation: int = 7, **fields: Any) -> Finish:
    values = {"status": "completed", "error": None, "wall_ns": 10**9, "overhead_ns_per_step": 900.0}
    values |= {"report": rank == 0, "style": "full", "columns": 80, "color": False, **fields}
    return Finish(rank=rank, incarnation=incarnation, **values)
