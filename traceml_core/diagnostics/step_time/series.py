"""The series: a run's steps as consecutive equal blocks, which is what two runs are compared by."""

from __future__ import annotations

import msgspec
import numpy as np

from traceml_core.core.phases import Phase
from traceml_core.diagnostics.step_time.step_table import StepTable
from traceml_core.statistics.buckets import span_that_fits

SERIES_PHASES = tuple(phase for phase in Phase if phase not in (Phase.STARTUP, Phase.TEARDOWN))


class SeriesBlock(msgspec.Struct, frozen=True, kw_only=True):
    """`count` consecutive steps from `first_step` on. Times in milliseconds a step.

    `step_interval_ms` is the mean of each step's slowest rank; phases are means over ranks, null where not measured.
    """

    first_step: int
    count: int
    warmup: bool
    step_interval_ms: float
    phases_ms: dict[str, float | None]


def step_series(table: StepTable, largest_count: int) -> tuple[SeriesBlock, ...]:
    """At most `largest_count` blocks over all steps; a step done twice counts as it was done last.

    Where steps were rolled up, a block's slowest rank is the one whose mean over the block is largest.
    """
    counted = table.judged + table.warmup
    kept = np.flatnonzero(counted)
    if kept.size == 0:
        return ()
    cell = _cells(table.first[kept], table.last[kept], largest_count)
    order = np.lexsort((table.rank[kept], cell))
    kept, cell = kept[order], cell[order]
    cells = _edges(cell)
    pairs = np.union1d(cells, _edges(table.rank[kept]))
    rows = np.add.reduceat((counted * table.rows)[kept], pairs)
    of_rank_ms = np.add.reduceat((counted * table.interval_ns)[kept], pairs) / rows / 1e6
    cells_in_pairs = np.searchsorted(pairs, cells)
    slowest_ms = np.maximum.reduceat(of_rank_ms, cells_in_pairs)
    steps = np.maximum.reduceat(rows, cells_in_pairs)
    sums_ms = np.add.reduceat(np.nan_to_num(table.phase_ns[:, kept]) * counted[kept], cells, axis=1) / 1e6
    phase_ms = sums_ms / np.add.reduceat(rows, cells_in_pairs)
    warmup = np.maximum.reduceat(table.warmup[kept], cells)
    measured = ~np.isnan(table.phase_ns[:, kept]).all(axis=1)

    starts = np.arange(0, cells.size, -(-cells.size // largest_count))
    counts = np.add.reduceat(steps, starts)
    block_ms = np.add.reduceat(slowest_ms * steps, starts) / counts
    block_phases_ms = np.add.reduceat(phase_ms * steps, starts, axis=1) / counts
    block_warmup = np.maximum.reduceat(warmup, starts)
    firsts = np.minimum.reduceat(np.minimum.reduceat(table.first[kept], cells), starts)
    keys = [phase.key for phase in SERIES_PHASES]
    # As Python's own numbers, a whole column at once: one by one they are what a short run's report waits for.
    unknown = [None] * len(starts)
    phases = (block_phases_ms[phase].tolist() if measured[phase] else unknown for phase in SERIES_PHASES)
    columns = (column.tolist() for column in (firsts, counts, block_warmup, block_ms))
    return tuple(
        SeriesBlock(
            first_step=int(first_step),
            count=round(count),
            warmup=bool(is_warmup),
            step_interval_ms=interval_ms,
            phases_ms=dict(zip(keys, phases_ms, strict=True)),
        )
        for (first_step, count, is_warmup, interval_ms), phases_ms in zip(
            zip(*columns, strict=True), zip(*phases, strict=True), strict=True
        )
    )


def _cells(first: np.ndarray, last: np.ndarray, largest_count: int) -> np.ndarray:
    """The cell of each entry: its step; where steps were rolled up, a block that holds whole buckets of all ranks."""
    longest = int((last - first).max()) + 1
    if longest == 1:
        return first
    span = span_that_fits(int(first.min()) - 1, int(last.max()) - 1, 1 << (longest - 1).bit_length(), largest_count)
    return (first - 1) // span


def _edges(values: np.ndarray) -> np.ndarray:
    """Where another value begins."""
    return np.flatnonzero(np.concatenate([[True], np.diff(values) != 0]))
