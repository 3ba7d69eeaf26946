"""What the process rules may look at: memory and CPU of every rank's process and of its loader workers."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from traceml_core.diagnostics.course import CoursePoint, course_in_time
from traceml_core.diagnostics.memory_creep import Creep, fastest_creep, find_creep
from traceml_core.diagnostics.metrics import RankMeans, rank_means, stats_of
from traceml_core.diagnostics.model import Stat
from traceml_core.diagnostics.process.hosts import HostMemory, host_memory
from traceml_core.diagnostics.process.policy import ProcessPolicy
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.statistics.ranked import RankedMetric, ranked_metric
from traceml_core.statistics.reduced import ReducedTable
from traceml_core.statistics.trend import evened

TABLES = ("process", "process_memory", "system", "step_memory")
"""The tables that `build_context` reads; those that are missing are taken for empty."""

_MEMORY_METRICS = ("rss_bytes", "workers_rss_bytes")
_PROCESS_METRICS = ("cpu_percent", "gpu_memory_bytes")


class Reserve(msgspec.Struct, frozen=True, kw_only=True):
    """Device memory that a rank's allocator holds: the most reserved, the most in use, and what the device has."""

    rank: int
    reserved_bytes: int
    allocated_bytes: int
    total_bytes: int | None


class ProcessContext(msgspec.Struct, frozen=True, kw_only=True):
    """The processes of a run, reduced. What was not measured is null.

    `creep` and `workers_creep` map the ranks whose main process, or whose workers, creep; of a rank that was started
    several times, each life is judged by itself, and the fastest creep kept.
    """

    run: RunShape
    samples: int
    creep: dict[int, Creep]
    workers_creep: dict[int, Creep]
    hosts: tuple[HostMemory, ...]
    cpu_share: float | None
    cpus: float | None
    reserves: tuple[Reserve, ...]
    metrics: dict[str, Stat]
    ranks: tuple[RankMeans, ...]
    course: tuple[CoursePoint, ...]


def build_context(
    tables: Mapping[str, ReducedTable | None], run: RunShape, policy: ProcessPolicy
) -> ProcessContext | None:
    """Judge the tables of `TABLES`; null where no process was looked at."""
    process, memory = _in_order(tables.get("process")), _in_order(tables.get("process_memory"))
    if process is None and memory is None:
        return None
    ranked = {
        **_ranked_metrics(memory, _MEMORY_METRICS),
        **_ranked_metrics(process, _PROCESS_METRICS),
    }
    ranks = sorted({rank for table in (process, memory) if table is not None for rank in table.ranks})
    system = _in_order(tables.get("system"))
    cpus = None if system is None else system.smallest("cpus")
    return ProcessContext(
        run=run,
        samples=0 if process is None else int(np.bincount(process.rank, process.rows).max()),
        creep=_creeping(memory, "", policy),
        workers_creep=_creeping(memory, "workers_", policy),
        hosts=host_memory(memory, system, run),
        cpu_share=_cpu_share(process, cpus, run),
        cpus=cpus,
        reserves=_reserves(tables.get("step_memory")),
        metrics=stats_of(ranked),
        ranks=rank_means(ranked, ranks),
        course=course_in_time([(memory, _MEMORY_METRICS), (process, _PROCESS_METRICS)]),
    )


def _in_order(table: ReducedTable | None) -> ReducedTable | None:
    """By rank, then time; null where there are no rows."""
    if table is None or table.size == 0:
        return None
    return table.take(np.lexsort((table.minima["at_ns"], table.rank)))


def _ranked_metrics(table: ReducedTable | None, names: tuple[str, ...]) -> dict[str, RankedMetric]:
    """Reduced over the looks since the first step, or all where no step was done."""
    if table is None:
        return {}
    weight = _training(table)
    found = {name: ranked_metric(table, name, weight) for name in names}
    return {name: metric for name, metric in found.items() if metric is not None}


def _training(table: ReducedTable) -> np.ndarray | None:
    """What picks the looks since the first step; null, which picks all, where no step was done."""
    training = table.maxima["step"] >= 1
    return training.astype(np.float64) if training.any() else None


def _creeping(memory: ReducedTable | None, whose: str, policy: ProcessPolicy) -> dict[int, Creep]:
    """The ranks whose processes creep. Pages of mapped files are left out: the system takes those back by itself."""
    if memory is None:
        return {}
    found = {}
    for rank, places in memory.by_rank().items():
        lives = [_creep_of_life(life, memory, whose, policy) for life in memory.by_life(places)]
        creep = fastest_creep(lives)
        if creep is not None:
            found[rank] = creep
    return found


def _creep_of_life(places: np.ndarray, memory: ReducedTable, whose: str, policy: ProcessPolicy) -> Creep | None:
    looks = memory.take(_longest_stretch(places, memory) if whose else places)
    # Of looks that were rolled up the lowest counts: creep is judged by the floor of what was held.
    known = looks.take(looks.counts[f"{whose}own_bytes"] > 0)
    at_s, lowest = known.means("at_ns") / 1e9, known.minima[f"{whose}own_bytes"]
    step, at_s, lowest = evened(known.rows, np.floor(known.means("step")), at_s, lowest)
    return find_creep(at_s, step, lowest, policy.creep)


def _longest_stretch(places: np.ndarray, memory: ReducedTable) -> np.ndarray:
    """The longest run of looks with the same number of workers, if there are any: starts and ends are no creep."""
    fewest, most = memory.minima["workers"][places], memory.maxima["workers"][places]
    edges = np.flatnonzero((np.diff(fewest) != 0) | (np.diff(most) != 0)) + 1
    stretches = [
        part
        for part, low, high in zip(*(np.split(values, edges) for values in (places, fewest, most)), strict=True)
        if low[0] == high[0] > 0
    ]
    return max(stretches, key=lambda part: int(memory.rows[part].sum()), default=places[:0])


def _cpu_share(process: ReducedTable | None, cpus: float | None, run: RunShape) -> float | None:
    """CPU time of all ranks of a host and their workers as a share of the job's CPUs there."""
    if process is None or not cpus:
        return None
    busy = ranked_metric(process, "job_cpu_percent", _training(process))
    hosts = max(len({rank.host for rank in run.ranks}), 1)
    return None if busy is None else sum(busy.rank_means.values()) / hosts / 100 / cpus


def _reserves(table: ReducedTable | None) -> tuple[Reserve, ...]:
    if table is None:
        return ()
    of_rank = {rank: table.take(places) for rank, places in table.by_rank().items()}
    return tuple(_reserve(rank, one) for rank, one in of_rank.items())


def _reserve(rank: int, memory: ReducedTable) -> Reserve:
    total = memory.largest("total_bytes")
    return Reserve(
        rank=rank,
        reserved_bytes=int(memory.largest("peak_reserved_bytes") or 0),
        allocated_bytes=int(memory.largest("peak_allocated_bytes") or 0),
        total_bytes=None if total is None else int(total),
    )
