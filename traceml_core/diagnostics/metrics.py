"""A section's metrics: from ranked numbers to the statistics and per-rank means that every surface shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from traceml_core.diagnostics.model import Stat
from traceml_core.statistics.ranked import RankedMetric


class RankMeans(msgspec.Struct, frozen=True, kw_only=True):
    """One rank's means, by metric name; null where that rank did not measure it."""

    rank: int
    metrics: dict[str, float | None]


def stat_of(metric: RankedMetric, share_of_step: float | None = None) -> Stat:
    """The statistic of one metric."""
    pooled, scale, worst = metric.pooled, metric.scale, metric.worst_rank
    return Stat(
        count=pooled.count,
        mean=metric.mean,
        median=pooled.quantile(0.5) * scale,
        p95=pooled.quantile(0.95) * scale,
        max=pooled.maximum * scale,
        share_of_step=share_of_step,
        worst_rank=worst,
        worst_rank_mean=None if worst is None else metric.rank_means[worst],
    )


def stats_of(metrics: Mapping[str, RankedMetric]) -> dict[str, Stat]:
    """The statistics of metrics that have no share of a step."""
    return {name: stat_of(metric) for name, metric in metrics.items()}


def rank_means(metrics: Mapping[str, RankedMetric], ranks: Iterable[int]) -> tuple[RankMeans, ...]:
    """Each rank's means of all metrics."""
    return tuple(
        RankMeans(rank=rank, metrics={name: metric.rank_means.get(rank) for name, metric in metrics.items()})
        for rank in ranks
    )
