"""What the system rules may look at: the hosts and GPUs of a run, while it trained."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from traceml_core.diagnostics.metrics import RankMeans, rank_means, stats_of
from traceml_core.diagnostics.model import Stat
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.diagnostics.system.policy import SystemPolicy
from traceml_core.history.reader import Columns
from traceml_core.statistics.ranked import RankedMetric, ranked_metric

TABLES = ("system", "gpu", "step_time")
"""The tables that `build_context` reads; those that are missing are taken for empty."""

_HOST_METRICS = ("host_cpu_percent", "host_memory_bytes")
_GPU_METRICS = ("gpu_utilization_percent", "gpu_memory_used_bytes", "gpu_temperature_c", "gpu_power_w")


class GpuLoad(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU during training. `rank` is the rank whose host it is in; nulls were not told by its driver.

    `temperature_c` is the 95th percentile, the others are means. `throttled_share` is the share of looks at which its
    clocks were slowed for heat or power supply.
    """

    rank: int
    index: int
    name: str
    samples: int
    utilization_percent: float | None
    memory_share: float | None
    temperature_c: float | None
    temperature_limit_c: float | None
    power_share: float | None
    throttled_share: float | None


class SystemContext(msgspec.Struct, frozen=True, kw_only=True):
    """The hosts of a run, reduced over training. Shares are of what the job may use, on the host where that is most."""

    run: RunShape
    samples: int
    host_cpu_percent: float | None
    host_memory_share: float | None
    memory_limit_bytes: int | None
    cpus: float | None
    gpus: tuple[GpuLoad, ...]
    metrics: dict[str, Stat]
    ranks: tuple[RankMeans, ...]


def build_context(tables: Mapping[str, Columns], run: RunShape, policy: SystemPolicy) -> SystemContext | None:
    """Reduce the tables of `TABLES`; null where no host was looked at."""
    training = _training(tables.get("step_time", {}))
    system, gpu = _during(tables.get("system", {}), training), _during(tables.get("gpu", {}), training)
    if not system and not gpu:
        return None
    ranked = {**_ranked_metrics(system, _HOST_METRICS), **_ranked_metrics(gpu, _GPU_METRICS)}
    cpu = ranked.get("host_cpu_percent")
    ranks = sorted({int(rank) for columns in (system, gpu) if columns for rank in np.unique(columns["rank"])})
    return SystemContext(
        run=run,
        samples=max((int((system["rank"] == rank).sum()) for rank in np.unique(system["rank"])), default=0)
        if system
        else 0,
        host_cpu_percent=None if cpu is None else max(cpu.rank_means.values()),
        host_memory_share=_memory_share(system),
        memory_limit_bytes=_whole(_smallest(system, "memory_limit_bytes")),
        cpus=_smallest(system, "cpus"),
        gpus=_gpu_loads(gpu, policy),
        metrics=stats_of(ranked),
        ranks=rank_means(ranked, ranks),
    )


def _training(steps: Columns) -> tuple[int, int] | None:
    """From the first step's start to the last one's end, in Unix nanoseconds; null where there are no steps."""
    if not steps or steps["rank"].size == 0:
        return None
    rows = ~np.isnan(steps["step"].astype(np.float64))
    if not rows.any():
        return None
    ends = steps["started_ns"][rows] + steps["interval_ns"][rows]
    return int(steps["started_ns"][rows].min()), int(ends.max())


def _during(columns: Columns, training: tuple[int, int] | None) -> Columns:
    """The rows of training, or all of them where training had none."""
    if not columns or columns["rank"].size == 0:
        return {}
    if training is None:
        return columns
    rows = (columns["at_ns"] >= training[0]) & (columns["at_ns"] <= training[1])
    return {name: values[rows] for name, values in columns.items()} if rows.any() else columns


def _ranked_metrics(columns: Columns, names: tuple[str, ...]) -> dict[str, RankedMetric]:
    if not columns:
        return {}
    found = {name: ranked_metric(columns[name].astype(np.float64), columns["rank"]) for name in names}
    return {name: metric for name, metric in found.items() if metric is not None}


def _memory_share(system: Columns) -> float | None:
    if not system:
        return None
    shares = system["host_memory_bytes"].astype(np.float64) / system["memory_limit_bytes"].astype(np.float64)
    return None if np.isnan(shares).all() else float(np.nanmax(shares))


def _smallest(columns: Columns, name: str) -> float | None:
    if not columns:
        return None
    values = columns[name].astype(np.float64)
    return None if np.isnan(values).all() else float(np.nanmin(values))


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _gpu_loads(gpu: Columns, policy: SystemPolicy) -> tuple[GpuLoad, ...]:
    if not gpu:
        return ()
    keys = sorted(set(zip(gpu["rank"].tolist(), gpu["gpu_index"].tolist(), strict=True)))
    loads = []
    for rank, index in keys:
        rows = (gpu["rank"] == rank) & (gpu["gpu_index"] == index)
        one = {name: values[rows] for name, values in gpu.items()}
        reasons = one["throttle_reasons"].astype(np.float64)
        told = reasons[~np.isnan(reasons)].astype(np.int64)
        loads.append(
            GpuLoad(
                rank=rank,
                index=index,
                name=str(one["name"][0]),
                samples=int(rows.sum()),
                utilization_percent=_mean(one["gpu_utilization_percent"]),
                memory_share=_mean(one["gpu_memory_used_bytes"] / one["gpu_memory_total_bytes"].astype(np.float64)),
                temperature_c=_high(one["gpu_temperature_c"]),
                temperature_limit_c=_smallest(one, "gpu_temperature_limit_c"),
                power_share=_mean(one["gpu_power_w"] / one["gpu_power_limit_w"].astype(np.float64)),
                throttled_share=float(((told & policy.throttle_reasons) != 0).mean()) if told.size else None,
            )
        )
    return tuple(loads)


def _mean(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _high(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanquantile(values, 0.95))
