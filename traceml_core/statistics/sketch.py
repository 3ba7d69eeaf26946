"""The quantile sketch: log-spaced bins that merge by addition and answer quantiles within 1 %."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

RELATIVE_ERROR = 0.01
_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = float(np.log(_GAMMA))
_CENTRE = 2 / (_GAMMA + 1)


class Sketch(msgspec.Struct, frozen=True, kw_only=True):
    """Non-negative numbers, reduced. Count, sum and extremes are exact; a quantile is off by at most 1 % of itself.

    Bin `first_bin + i` counts the values in (γ^(bin-1), γ^bin], γ = 1.01 ÷ 0.99; zeros have a count of their own. The
    sketch of a union is `merge` of the sketches, exactly, in any order.
    """

    count: int = 0
    zeros: int = 0
    total: float = 0.0
    minimum: float = float("inf")
    maximum: float = float("-inf")
    first_bin: int = 0
    bins: tuple[int, ...] = ()

    @property
    def mean(self) -> float:
        """The exact mean; NaN where nothing was counted."""
        return self.total / self.count if self.count else float("nan")

    def sum_up_to(self, limit: float) -> float:
        """The sum of all values, each counted up to `limit`."""
        if not self.count:
            return 0.0
        centres = _CENTRE * np.exp((self.first_bin + np.arange(len(self.bins))) * _LOG_GAMMA)
        above = np.maximum(np.clip(centres, self.minimum, self.maximum) - limit, 0.0)
        return max(self.total - float((above * self.bins).sum()), 0.0)

    def quantile(self, share: float) -> float:
        """The smallest value that at least `share` (0-1) of all values do not exceed; NaN where nothing was counted."""
        if not 0 <= share <= 1:
            raise ValueError(f"a quantile is asked for by a share from 0 to 1, not {share!r}")
        if not self.count:
            return float("nan")
        rank = max(int(np.ceil(share * self.count - 1e-9)), 1)
        if rank <= self.zeros:
            return 0.0
        cumulated = np.cumsum(self.bins) + self.zeros
        place = int(np.searchsorted(cumulated, rank))
        value = _CENTRE * float(np.exp((self.first_bin + place) * _LOG_GAMMA))
        return min(max(value, self.minimum), self.maximum)

    def count_from(self, value: float) -> int:
        """How many values are at least `value` (above 0), give or take those within 1 % of it."""
        if value > self.maximum:
            return 0
        begin = max(int(np.ceil(np.log(value) / _LOG_GAMMA - 1e-9)) - self.first_bin, 0)
        return sum(self.bins[begin:])

    def histogram(self, most: int) -> list[tuple[float, float, int]]:
        """The values in at most `most` bins that grow alike: each one's lower and upper end, and its count.

        Zeros have a bin of their own, from 0 to 0; empty bins at either end are left out.
        """
        bins = [(0.0, 0.0, self.zeros)] if self.zeros else []
        width = max(-(-len(self.bins) // max(most - len(bins), 1)), 1)
        for start in range(0, len(self.bins), width):
            first = self.first_bin + start
            lower, upper = (float(np.exp(edge * _LOG_GAMMA)) for edge in (first - 1, first + width - 1))
            bins.append((lower, upper, sum(self.bins[start : start + width])))
        return bins

    def thinned(self, share: float) -> Sketch:
        """About that share of the values, of every size alike; extremes are kept as they are."""
        if share >= 1:
            return self
        bins = np.rint(np.array(self.bins, np.float64) * share).astype(np.int64)
        zeros = round(self.zeros * share)
        count = int(bins.sum()) + zeros
        replaced = {"count": count, "zeros": zeros, "total": self.mean * count if count else 0.0}
        return msgspec.structs.replace(self, bins=tuple(bins.tolist()), **replaced)


def sketch_of(values: np.ndarray) -> Sketch:
    """The sketch of an array of any shape. NaN means 'not measured' and is left out.

    Raises:
        ValueError: a value is negative or infinite.
    """
    known = np.asarray(values, dtype=np.float64).ravel()
    known = known[~np.isnan(known)]
    if known.size == 0:
        return Sketch()
    minimum, maximum = float(known.min()), float(known.max())
    if minimum < 0 or maximum == np.inf:
        raise ValueError(f"a sketch holds finite numbers from 0 on, not {minimum if minimum < 0 else maximum!r}")
    positive = known[known > 0]
    first, bins = 0, np.zeros(0, np.int64)
    if positive.size:
        places = np.ceil(np.log(positive) / _LOG_GAMMA - 1e-9).astype(np.int64)
        first = int(places.min())
        bins = np.bincount(places - first)
    return Sketch(
        count=known.size,
        zeros=known.size - positive.size,
        total=float(known.sum()),
        minimum=minimum,
        maximum=maximum,
        first_bin=first,
        bins=tuple(bins.tolist()),
    )


def sketches_of(values: np.ndarray) -> list[Sketch]:
    """The sketch of every column of (rows, columns). What is not measured, negative or infinite is left out."""
    columns = np.ascontiguousarray(values.T)
    positive, zero = (columns > 0) & (columns < np.inf), columns == 0
    known = columns[positive]  # column by column
    places = np.ceil(np.log(known) / _LOG_GAMMA - 1e-9).astype(np.int64)
    positives, zeros = positive.sum(axis=1), zero.sum(axis=1).tolist()
    ends = np.cumsum(positives).tolist()
    sketches = []
    for end, count, zero_count in zip(ends, positives.tolist(), zeros, strict=True):
        mine, bins = known[end - count : end], places[end - count : end]
        first = int(bins.min()) if count else 0
        smallest, largest = (float(mine.min()), float(mine.max())) if count else (np.inf, -np.inf)
        sketches.append(
            Sketch(
                count=count + zero_count,
                zeros=zero_count,
                total=float(mine.sum()),
                minimum=0.0 if zero_count else smallest,
                maximum=max(largest, 0.0) if zero_count else largest,
                first_bin=first,
                bins=tuple(np.bincount(bins - first).tolist()) if count else (),
            )
        )
    return sketches


def merge(sketches: Iterable[Sketch]) -> Sketch:
    """The sketch of everything that the sketches counted."""
    filled = [sketch for sketch in sketches if sketch.count]
    if len(filled) < 2:
        return filled[0] if filled else Sketch()
    binned = [sketch for sketch in filled if sketch.bins]
    first = min((sketch.first_bin for sketch in binned), default=0)
    last = max((sketch.first_bin + len(sketch.bins) for sketch in binned), default=0)
    bins = np.zeros(last - first, np.int64)
    for sketch in binned:
        start = sketch.first_bin - first
        bins[start : start + len(sketch.bins)] += sketch.bins
    return Sketch(
        count=sum(sketch.count for sketch in filled),
        zeros=sum(sketch.zeros for sketch in filled),
        total=sum(sketch.total for sketch in filled),
        minimum=min(sketch.minimum for sketch in filled),
        maximum=max(sketch.maximum for sketch in filled),
        first_bin=first,
        bins=tuple(bins.tolist()),
    )
