"""What the system rules may look at: the hosts and GPUs of a run, while it trained."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from traceml_core.diagnostics.course import CoursePoint, course_in_time
from traceml_core.diagnostics.metrics import RankMeans, rank_means, stats_of
from traceml_core.diagnostics.model import Stat
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.diagnostics.system.gpu_load import GpuLoad, gpus_in_use
from traceml_core.diagnostics.system.policy import SystemPolicy
from traceml_core.statistics.ranked import RankedMetric, ranked_metric
from traceml_core.statistics.reduced import ReducedTable

TABLES = ("system", "gpu", "step_time", "step_memory")
"""The tables that `build_context` reads; those that are missing are taken for empty."""

_HOST_METRICS = ("host_cpu_percent", "host_memory_bytes")
_GPU_METRICS = ("gpu_utilization_percent", "gpu_memory_used_bytes", "gpu_temperature_c", "gpu_power_w")


class SystemContext(msgspec.Struct, frozen=True, kw_only=True):
    """The hosts of a run, reduced over training. Shares are of what the job may use, on the host where that is most.

    `gpus` are those that the run trains on; `metrics` are of all that its ranks can see.
    """

    run: RunShape
    samples: int
    host_cpu_percent: float | None
    host_memory_share: float | None
    memory_limit_bytes: int | None
    cpus: float | None
    gpus: tuple[GpuLoad, ...]
    metrics: dict[str, Stat]
    ranks: tuple[RankMeans, ...]
    course: tuple[CoursePoint, ...]


def build_context(
    tables: Mapping[str, ReducedTable | None], run: RunShape, policy: SystemPolicy
) -> SystemContext | None:
    """Judge the tables of `TABLES`; null where no host was looked at."""
    training = _training(tables.get("step_time"))
    system, gpu = _during(tables.get("system"), training), _during(tables.get("gpu"), training)
    if system is None and gpu is None:
        return None
    ranked = {**_ranked_metrics(system, _HOST_METRICS), **_ranked_metrics(gpu, _GPU_METRICS)}
    cpu = ranked.get("host_cpu_percent")
    limit = None if system is None else system.smallest("memory_limit_bytes")
    return SystemContext(
        run=run,
        samples=0 if system is None else int(np.bincount(system.rank, system.rows).max()),
        host_cpu_percent=None if cpu is None else max(cpu.rank_means.values()),
        host_memory_share=None if system is None else system.largest("host_memory_share"),
        memory_limit_bytes=None if limit is None else int(limit),
        cpus=None if system is None else system.smallest("cpus"),
        gpus=() if gpu is None else gpus_in_use(_gpu_loads(gpu), tables.get("step_memory"), run),
        metrics=stats_of(ranked),
        ranks=rank_means(ranked, sorted({rank for one in (system, gpu) if one is not None for rank in one.ranks})),
        course=course_in_time([(system, _HOST_METRICS), (gpu, _GPU_METRICS)]),
    )


def _training(steps: ReducedTable | None) -> tuple[float, float] | None:
    """From the first step's start to the last one's end, in Unix nanoseconds; null where there are no steps."""
    if steps is None:
        return None
    rows = steps.counts["step"] > 0
    if not rows.any():
        return None
    return float(steps.minima["started_ns"][rows].min()), float(steps.maxima["ended_ns"][rows].max())


def _during(table: ReducedTable | None, training: tuple[float, float] | None) -> ReducedTable | None:
    """The looks during training, or all of them where training had none; null where there are none at all."""
    if table is None or table.size == 0:
        return None
    if training is None:
        return table
    rows = (table.maxima["at_ns"] >= training[0]) & (table.minima["at_ns"] <= training[1])
    return table.take(rows) if rows.any() else table


def _ranked_metrics(table: ReducedTable | None, names: tuple[str, ...]) -> dict[str, RankedMetric]:
    if table is None:
        return {}
    found = {name: ranked_metric(table, name) for name in names}
    return {name: metric for name, metric in found.items() if metric is not None}


def _gpu_loads(gpu: ReducedTable) -> tuple[GpuLoad, ...]:
    index = gpu.minima["gpu_index"].astype(np.int64)
    keys = sorted(set(zip(gpu.rank.tolist(), index.tolist(), strict=True)))
    return tuple(_gpu_load(rank, one, gpu.take((gpu.rank == rank) & (index == one))) for rank, one in keys)


def _gpu_load(rank: int, index: int, looks: ReducedTable) -> GpuLoad:
    temperature = ranked_metric(looks, "gpu_temperature_c")
    return GpuLoad(
        rank=rank,
        index=index,
        name=str(looks.texts["name"][0]),
        samples=int(looks.rows.sum()),
        utilization_percent=looks.mean("gpu_utilization_percent"),
        memory_share=looks.mean("gpu_memory_share"),
        temperature_c=None if temperature is None else temperature.pooled.quantile(0.95),
        temperature_limit_c=looks.smallest("gpu_temperature_limit_c"),
        power_share=looks.mean("gpu_power_share"),
        throttled_share=looks.mean("slowed"),
    )
