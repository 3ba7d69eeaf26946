"""One metric over ranks: reduced per rank, pooled, and the rank where it is largest."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from traceml_core.statistics.sketch import Sketch, merge, sketch_of


class RankedMetric(msgspec.Struct, frozen=True, kw_only=True):
    """All values of one metric: `pooled` over ranks, and each rank's mean. Both leave out what was not measured."""

    pooled: Sketch
    rank_means: dict[int, float]

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


def ranked_metric(values: np.ndarray, ranks: np.ndarray, scale: float = 1.0) -> RankedMetric | None:
    """Reduce values (NaN: not measured) of the ranks beside them, multiplied by `scale`; null where none is known."""
    known = ~np.isnan(values)
    if not known.any():
        return None
    kept, owners = values[known] * scale, ranks[known]
    if (owners == owners[0]).all():  # the usual run, whose report training waits for
        sketch = sketch_of(kept)
        return RankedMetric(pooled=sketch, rank_means={int(owners[0]): sketch.mean})
    sketches = {int(rank): sketch_of(kept[owners == rank]) for rank in np.unique(owners)}
    return RankedMetric(
        pooled=merge(sketches.values()), rank_means={rank: sketch.mean for rank, sketch in sketches.items()}
    )
