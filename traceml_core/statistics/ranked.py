"""One metric over ranks: reduced per rank, pooled, and the rank where it is largest."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from traceml_core.statistics.reduced import ReducedTable
from traceml_core.statistics.sketch import Sketch, merge


class RankedMetric(msgspec.Struct, frozen=True, kw_only=True):
    """All values of one metric: `pooled` over ranks, and each rank's mean. Both leave out what was not measured.

    The means are in the metric's unit, `pooled` in that of the rows: `scale` times it is the metric's.
    """

    pooled: Sketch
    rank_means: dict[int, float]
    scale: float = 1.0

    @property
    def mean(self) -> float:
        """The mean over all values."""
        return self.pooled.mean * self.scale

    @property
    def worst_rank(self) -> int | None:
        """The rank with the largest mean; null where fewer than two ranks have one."""
        if len(self.rank_means) < 2:
            return None
        return max(self.rank_means, key=lambda rank: (self.rank_means[rank], -rank))


def median_rank(values: Iterable[float]) -> float:
    """The value of the median rank, the lower one of two in the middle: what half of the ranks do not exceed."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]


def ranked_metric(
    table: ReducedTable, name: str, weight: np.ndarray | None = None, scale: float = 1.0
) -> RankedMetric | None:
    """Reduce a column, multiplied by `scale`, over entries weighted by the share that counts; null where none does."""
    sketches = table.sketches_by_rank(name, weight)
    if not sketches:
        return None
    return RankedMetric(
        pooled=merge(sketches.values()),
        rank_means={rank: sketch.mean * scale for rank, sketch in sketches.items()},
        scale=scale,
    )
