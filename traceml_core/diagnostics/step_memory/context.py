"""What the step_memory rules may look at: what the device's allocator held in the steps of every rank."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from traceml_core.diagnostics.course import CoursePoint, course_in_steps
from traceml_core.diagnostics.memory_creep import Creep, find_creep
from traceml_core.diagnostics.metrics import RankMeans, rank_means, stats_of
from traceml_core.diagnostics.model import Stat
from traceml_core.diagnostics.redone import redone_share
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.diagnostics.step_memory.policy import StepMemoryPolicy
from traceml_core.statistics.ranked import RankedMetric, ranked_metric
from traceml_core.statistics.reduced import ReducedTable
from traceml_core.statistics.trend import evened

TABLES = ("step_memory", "step_time")
"""The tables that `build_context` reads; those that are missing are taken for empty."""


class RankMemory(msgspec.Struct, frozen=True, kw_only=True):
    """One rank's device memory. `retries` happened after the first steps; `creep` is null where memory is steady."""

    rank: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    last_allocated_bytes: int
    total_bytes: int | None
    retries: int
    creep: Creep | None

    @property
    def pressure_share(self) -> float | None:
        """The most that was in use as a share of the device's memory."""
        return self.peak_allocated_bytes / self.total_bytes if self.total_bytes else None


class StepMemoryContext(msgspec.Struct, frozen=True, kw_only=True):
    """The device memory of a run, reduced. `memory` is empty where no rank has a device with an allocator."""

    run: RunShape
    memory: tuple[RankMemory, ...]
    metrics: dict[str, Stat]
    ranks: tuple[RankMeans, ...]
    course: tuple[CoursePoint, ...]


def build_context(
    tables: Mapping[str, ReducedTable | None], run: RunShape, policy: StepMemoryPolicy
) -> StepMemoryContext:
    """Judge the tables of `TABLES`."""
    table = _in_order(tables.get("step_memory"))
    if table is None:
        return StepMemoryContext(run=run, memory=(), metrics={}, ranks=(), course=())
    names = ("peak_allocated_bytes", "peak_reserved_bytes")
    found: dict[str, RankedMetric | None] = {name: ranked_metric(table, name) for name in names}
    ranked = {name: metric for name, metric in found.items() if metric is not None}
    began = _step_starts(tables.get("step_time"))
    return StepMemoryContext(
        run=run,
        memory=tuple(
            _rank_memory(rank, table.take(places), began.get(rank), policy) for rank, places in table.by_rank().items()
        ),
        metrics=stats_of(ranked),
        ranks=rank_means(ranked, table.ranks),
        course=course_in_steps(table, names),
    )


def _in_order(table: ReducedTable | None) -> ReducedTable | None:
    """By rank, then step; a step done twice counts as it was done last; null where there are no rows."""
    if table is None or table.size == 0:
        return None
    table = table.take(np.argsort(table.rank, kind="stable"))
    first, last = table.minima["step"], table.maxima["step"]
    # What was done again in part is kept whole: only the entry of several steps in which a restart lies.
    table = table.take(redone_share(table.rank, table.incarnation, first, last) < 1)
    return table.take(np.lexsort((table.minima["step"], table.rank)))


def _rank_memory(
    rank: int, table: ReducedTable, began: tuple[np.ndarray, np.ndarray] | None, policy: StepMemoryPolicy
) -> RankMemory:
    step, retries = table.means("step"), table.maxima["allocation_retries"]
    at_s = step if began is None else np.interp(step, *began)
    step, at_s, lowest = evened(table.rows, step, at_s, table.minima["allocated_bytes"])
    total = table.largest("total_bytes")
    return RankMemory(
        rank=rank,
        peak_allocated_bytes=int(table.largest("peak_allocated_bytes") or 0),
        peak_reserved_bytes=int(table.largest("peak_reserved_bytes") or 0),
        last_allocated_bytes=int(table.last("allocated_bytes") or 0),
        total_bytes=None if total is None else int(total),
        retries=int(retries[-1] - retries[min(policy.settle_steps, retries.size - 1)]),
        creep=find_creep(at_s, step, lowest, policy.creep),
    )


def _step_starts(table: ReducedTable | None) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Steps and the seconds at which they began, per rank."""
    if table is None:
        return {}
    first, started_s = table.minima["step"], table.minima["started_ns"] / 1e9
    steps = np.flatnonzero(~np.isnan(first))
    by_rank = table.by_rank(steps[np.argsort(first[steps], kind="stable")])
    return {rank: (first[places], started_s[places]) for rank, places in by_rank.items()}
