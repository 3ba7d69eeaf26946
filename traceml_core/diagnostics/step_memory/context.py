"""What the step_memory rules may look at: what the device's allocator held in the steps of every rank."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from traceml_core.diagnostics.course import CoursePoint, course_in_steps
from traceml_core.diagnostics.memory_creep import Creep, fastest_creep, find_creep
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
    """One rank's device memory. `creep` is null where memory is steady.

    Of a rank that was started several times, each life is judged by itself: `retries` happened after the first steps of
    each, and `creep` is the fastest.
    """

    rank: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
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
    steps = tables.get("step_time")
    return StepMemoryContext(
        run=run,
        memory=tuple(
            _rank_memory(rank, table.take(places), None if steps is None else steps.take(steps.rank == rank), policy)
            for rank, places in table.by_rank().items()
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


def _rank_memory(rank: int, table: ReducedTable, steps: ReducedTable | None, policy: StepMemoryPolicy) -> RankMemory:
    lives = [table.take(places) for places in table.by_life(np.arange(table.size))]
    total = table.largest("total_bytes")
    return RankMemory(
        rank=rank,
        peak_allocated_bytes=int(table.largest("peak_allocated_bytes") or 0),
        peak_reserved_bytes=int(table.largest("peak_reserved_bytes") or 0),
        total_bytes=None if total is None else int(total),
        retries=sum(_retries(life, policy) for life in lives),
        creep=fastest_creep(_creep(life, steps, policy) for life in lives),
    )


def _retries(life: ReducedTable, policy: StepMemoryPolicy) -> int:
    """The allocator counts from the start of its process."""
    retries = life.maxima["allocation_retries"]
    return int(retries[-1] - retries[min(policy.settle_steps, retries.size - 1)])


def _creep(life: ReducedTable, steps: ReducedTable | None, policy: StepMemoryPolicy) -> Creep | None:
    step = life.means("step")
    at_s = step if steps is None else _began_s(step, steps.take(steps.incarnation == life.incarnation[0]))
    step, at_s, lowest = evened(life.rows, step, at_s, life.minima["allocated_bytes"])
    return find_creep(at_s, step, lowest, policy.creep)


def _began_s(step: np.ndarray, life: ReducedTable) -> np.ndarray:
    """When these steps of a life began, in seconds; the steps themselves where it has no rows of any."""
    first, started_s = life.minima["step"], life.minima["started_ns"] / 1e9
    known = np.flatnonzero(~np.isnan(first))
    if not known.size:
        return step
    known = known[np.argsort(first[known], kind="stable")]
    began_s: np.ndarray = np.interp(step, first[known], started_s[known])
    return began_s
