"""The series: a run's steps as consecutive equal blocks, which is what two runs are compared by."""

from __future__ import annotations

import msgspec
import numpy as np

from traceml_core.core.phases import Phase
from traceml_core.diagnostics.step_time.step_table import StepTable

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
    """At most `largest_count` blocks over all steps; a step done twice counts as it was done last."""
    kept = np.flatnonzero(table.judged | table.warmup)
    if kept.size == 0:
        return ()
    kept = kept[np.argsort(table.step[kept], kind="stable")]
    steps = table.step[kept]
    firsts = np.flatnonzero(np.concatenate([[True], np.diff(steps) > 0]))
    slowest_ms = np.maximum.reduceat(table.interval_ns[kept], firsts) / 1e6
    warmup = np.maximum.reduceat(table.warmup[kept], firsts)
    rows_a_step = np.diff(np.append(firsts, kept.size))
    sums_ms = np.add.reduceat(np.nan_to_num(table.phase_ns[:, kept]), firsts, axis=1) / 1e6
    phase_ms = sums_ms / rows_a_step
    measured = ~np.isnan(table.phase_ns[:, kept]).all(axis=1)

    size = -(-firsts.size // largest_count)
    starts = np.arange(0, firsts.size, size)
    counts = np.diff(np.append(starts, firsts.size))
    block_ms = np.add.reduceat(slowest_ms, starts) / counts
    block_phases_ms = np.add.reduceat(phase_ms, starts, axis=1) / counts
    block_warmup = np.maximum.reduceat(warmup, starts)
    keys = [phase.key for phase in SERIES_PHASES]
    # As Python's own numbers, a whole column at once: one by one they are what a short run's report waits for.
    unknown = [None] * len(starts)
    phases = (block_phases_ms[phase].tolist() if measured[phase] else unknown for phase in SERIES_PHASES)
    columns = (column.tolist() for column in (steps[firsts[starts]], counts, block_warmup, block_ms))
    return tuple(
        SeriesBlock(
            first_step=int(first_step),
            count=count,
            warmup=is_warmup,
            step_interval_ms=interval_ms,
            phases_ms=dict(zip(keys, phases_ms, strict=True)),
        )
        for (first_step, count, is_warmup, interval_ms), phases_ms in zip(
            zip(*columns, strict=True), zip(*phases, strict=True), strict=True
        )
    )
