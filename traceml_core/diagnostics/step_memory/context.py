"""What the step_memory rules may look at: what the device's allocator held in the steps of every rank."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from traceml_core.diagnostics.memory_creep import Creep, find_creep
from traceml_core.diagnostics.metrics import RankMeans, rank_means, stats_of
from traceml_core.diagnostics.model import Stat
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.diagnostics.step_memory.policy import StepMemoryPolicy
from traceml_core.history.reader import Columns
from traceml_core.statistics.ranked import RankedMetric, ranked_metric

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


def build_context(tables: Mapping[str, Columns], run: RunShape, policy: StepMemoryPolicy) -> StepMemoryContext:
    """Reduce the tables of `TABLES`."""
    columns = _in_order(tables.get("step_memory", {}))
    if not columns:
        return StepMemoryContext(run=run, memory=(), metrics={}, ranks=())
    ranked = _ranked_metrics(columns, policy)
    ranks = [int(rank) for rank in np.unique(columns["rank"])]
    began = _step_starts(tables.get("step_time", {}))
    return StepMemoryContext(
        run=run,
        memory=tuple(_rank_memory(rank, columns, began, policy) for rank in ranks),
        metrics=stats_of(ranked),
        ranks=rank_means(ranked, ranks),
    )


def _in_order(columns: Columns) -> Columns:
    """By rank, then step; a step done twice counts as it was done last; empty where there are no rows."""
    if not columns or columns["rank"].size == 0:
        return {}
    order = np.lexsort((columns["step"], columns["rank"]))
    rank, step = columns["rank"][order], columns["step"][order]
    last = np.append((np.diff(step) != 0) | (np.diff(rank) != 0), True)
    return {name: values[order][last] for name, values in columns.items()}


def _ranked_metrics(columns: Columns, policy: StepMemoryPolicy) -> dict[str, RankedMetric]:
    names = ("peak_allocated_bytes", "peak_reserved_bytes")
    found = {name: ranked_metric(columns[name].astype(np.float64), columns["rank"]) for name in names}
    return {name: metric for name, metric in found.items() if metric is not None}


def _rank_memory(
    rank: int, columns: Columns, began: dict[int, tuple[np.ndarray, np.ndarray]], policy: StepMemoryPolicy
) -> RankMemory:
    rows = columns["rank"] == rank
    step, allocated = columns["step"][rows], columns["allocated_bytes"][rows].astype(np.float64)
    totals = columns["total_bytes"][rows].astype(np.float64)
    retries = columns["allocation_retries"][rows]
    steps, starts_s = began.get(rank, (np.zeros(0), np.zeros(0)))
    at_s = np.interp(step, steps, starts_s) if steps.size else step.astype(np.float64)
    return RankMemory(
        rank=rank,
        peak_allocated_bytes=int(columns["peak_allocated_bytes"][rows].max()),
        peak_reserved_bytes=int(columns["peak_reserved_bytes"][rows].max()),
        last_allocated_bytes=int(allocated[-1]),
        total_bytes=None if np.isnan(totals).all() else int(np.nanmax(totals)),
        retries=int(retries[-1] - retries[min(policy.settle_steps, retries.size - 1)]),
        creep=find_creep(at_s, step.astype(np.float64), allocated, policy.creep),
    )


def _step_starts(columns: Columns) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Steps and the seconds at which they began, per rank."""
    if not columns or columns["rank"].size == 0:
        return {}
    found = {}
    for rank in np.unique(columns["rank"]):
        rows = np.flatnonzero((columns["rank"] == rank) & ~np.isnan(columns["step"].astype(np.float64)))
        rows = rows[np.argsort(columns["step"][rows], kind="stable")]
        found[int(rank)] = (columns["step"][rows].astype(np.float64), columns["started_ns"][rows] / 1e9)
    return found
