"""What the process rules may look at: memory and CPU of every rank's process and of its loader workers."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from traceml_core.diagnostics.memory_creep import Creep, find_creep
from traceml_core.diagnostics.metrics import RankMeans, rank_means, stats_of
from traceml_core.diagnostics.model import Stat
from traceml_core.diagnostics.process.policy import ProcessPolicy
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.history.reader import Columns
from traceml_core.statistics.ranked import RankedMetric, ranked_metric

TABLES = ("process", "process_memory", "system", "step_memory")
"""The tables that `build_context` reads; those that are missing are taken for empty."""


class Reserve(msgspec.Struct, frozen=True, kw_only=True):
    """Device memory that a rank's allocator holds: the most reserved, the most in use, and what the device has."""

    rank: int
    reserved_bytes: int
    allocated_bytes: int
    total_bytes: int | None


class ProcessContext(msgspec.Struct, frozen=True, kw_only=True):
    """The processes of a run, reduced. What was not measured is null.

    `creep` and `workers_creep` map the ranks whose main process, or whose workers, creep. `job_memory_bytes` is the
    most that the ranks of one host and their workers held together, `used_bytes` what the job held last.
    """

    run: RunShape
    samples: int
    creep: dict[int, Creep]
    workers_creep: dict[int, Creep]
    job_memory_bytes: int | None
    used_bytes: int | None
    limit_bytes: int | None
    cpu_share: float | None
    cpus: float | None
    reserves: tuple[Reserve, ...]
    metrics: dict[str, Stat]
    ranks: tuple[RankMeans, ...]


def build_context(tables: Mapping[str, Columns], run: RunShape, policy: ProcessPolicy) -> ProcessContext | None:
    """Reduce the tables of `TABLES`; null where no process was looked at."""
    process, memory = _in_order(tables.get("process", {})), _in_order(tables.get("process_memory", {}))
    if not process and not memory:
        return None
    ranked = _ranked_metrics(process, memory)
    ranks = sorted({*_ranks_of(process), *_ranks_of(memory)})
    limit, used, cpus = _limits(_in_order(tables.get("system", {})))
    return ProcessContext(
        run=run,
        samples=max((int((process["rank"] == rank).sum()) for rank in _ranks_of(process)), default=0),
        creep=_creeping(memory, "", policy),
        workers_creep=_creeping(memory, "workers_", policy),
        job_memory_bytes=_job_memory(memory, run),
        used_bytes=used,
        limit_bytes=limit,
        cpu_share=_cpu_share(process, cpus, run),
        cpus=cpus,
        reserves=_reserves(tables.get("step_memory", {})),
        metrics=stats_of(ranked),
        ranks=rank_means(ranked, ranks),
    )


def _in_order(columns: Columns) -> Columns:
    """By rank, then time; empty where there are no rows."""
    if not columns or columns["rank"].size == 0:
        return {}
    order = np.lexsort((columns["at_ns"], columns["rank"]))
    return {name: values[order] for name, values in columns.items()}


def _ranks_of(columns: Columns) -> list[int]:
    return [int(rank) for rank in np.unique(columns["rank"])] if columns else []


def _ranked_metrics(process: Columns, memory: Columns) -> dict[str, RankedMetric]:
    """Reduced over the looks since the first step, or all where no step was done."""
    found = {}
    for columns, names in (
        (memory, ("rss_bytes", "workers_rss_bytes")),
        (process, ("cpu_percent", "gpu_memory_bytes")),
    ):
        for name in names:
            if not columns:
                continue
            rows = columns["step"] >= 1
            rows = rows if rows.any() else np.ones(rows.size, bool)
            found[name] = ranked_metric(columns[name][rows].astype(np.float64), columns["rank"][rows])
    return {name: metric for name, metric in found.items() if metric is not None}


def _creeping(memory: Columns, whose: str, policy: ProcessPolicy) -> dict[int, Creep]:
    """The ranks whose processes creep. Pages of mapped files are left out: the system takes those back by itself."""
    found = {}
    for rank in _ranks_of(memory):
        rows = np.flatnonzero(memory["rank"] == rank)
        if whose:
            rows = _longest_stretch(rows, memory["workers"][rows])
        size = memory[f"{whose}rss_bytes"][rows].astype(np.float64)
        mapped = memory.get(f"{whose}mapped_file_bytes")
        if mapped is not None:
            size = size - np.nan_to_num(mapped[rows].astype(np.float64))
        known = ~np.isnan(size)
        at_s = memory["at_ns"][rows][known] / 1e9
        creep = find_creep(at_s, memory["step"][rows][known], size[known], policy.creep)
        if creep is not None:
            found[rank] = creep
    return found


def _longest_stretch(rows: np.ndarray, workers: np.ndarray) -> np.ndarray:
    """The longest run of rows with the same number of workers, if there are any: starts and ends are no creep."""
    edges = np.flatnonzero(np.diff(workers)) + 1
    stretches = [part for part, count in zip(np.split(rows, edges), np.split(workers, edges), strict=True) if count[0]]
    return max(stretches, key=len, default=rows[:0])


def _job_memory(memory: Columns, run: RunShape) -> int | None:
    """The most that the processes of one host held: each rank's own peak, added up."""
    if not memory:
        return None
    host_of = {rank.rank: rank.host for rank in run.ranks}
    total: dict[str, float] = {}
    for rank in _ranks_of(memory):
        rows = memory["rank"] == rank
        together = memory["rss_bytes"][rows] + np.nan_to_num(memory["workers_rss_bytes"][rows].astype(np.float64))
        host = host_of.get(rank, "")
        total[host] = total.get(host, 0.0) + float(together.max())
    return int(max(total.values()))


def _limits(system: Columns) -> tuple[int | None, int | None, float | None]:
    """The tightest memory limit of a host, what the job held there last, and its CPUs."""
    if not system:
        return None, None, None
    limits = system["memory_limit_bytes"].astype(np.float64)
    cpus = system["cpus"].astype(np.float64)
    limit = None if np.isnan(limits).all() else int(np.nanmin(limits))
    used = system["host_memory_bytes"].astype(np.float64)
    last = used[~np.isnan(used)]
    return limit, int(last[-1]) if last.size else None, None if np.isnan(cpus).all() else float(np.nanmin(cpus))


def _cpu_share(process: Columns, cpus: float | None, run: RunShape) -> float | None:
    """CPU time of all ranks of a host and their workers as a share of the job's CPUs there."""
    if not process or not cpus:
        return None
    rows = process["step"] >= 1
    workers = np.nan_to_num(process["workers_cpu_percent"][rows].astype(np.float64))
    busy = ranked_metric(process["cpu_percent"][rows].astype(np.float64) + workers, process["rank"][rows])
    hosts = max(len({rank.host for rank in run.ranks}), 1)
    return None if busy is None else sum(busy.rank_means.values()) / hosts / 100 / cpus


def _reserves(columns: Columns) -> tuple[Reserve, ...]:
    found = []
    for rank in _ranks_of(columns) if columns and columns["rank"].size else []:
        rows = columns["rank"] == rank
        totals = columns["total_bytes"][rows].astype(np.float64)
        found.append(
            Reserve(
                rank=rank,
                reserved_bytes=int(columns["peak_reserved_bytes"][rows].max()),
                allocated_bytes=int(columns["peak_allocated_bytes"][rows].max()),
                total_bytes=None if np.isnan(totals).all() else int(np.nanmax(totals)),
            )
        )
    return tuple(found)
