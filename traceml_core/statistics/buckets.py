"""Buckets: consecutive rows reduced to counts, sums and extremes, which merge by addition, in any order."""

from __future__ import annotations

import msgspec
import numpy as np


class Buckets(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of some columns, reduced. Bucket `i` is that of `keys[i]`, ascending; `rows` counts its rows.

    The others are (buckets, columns): how many values were measured, their sum, and the smallest and largest of them
    (infinite where none was).
    """

    keys: np.ndarray
    rows: np.ndarray
    counts: np.ndarray
    sums: np.ndarray
    minima: np.ndarray
    maxima: np.ndarray


def buckets_of(keys: np.ndarray, values: np.ndarray) -> Buckets:
    """Reduce values (rows, columns), NaN where not measured, by the key of each row."""
    known = ~np.isnan(values)
    return _reduced(
        Buckets(
            keys=keys,
            rows=np.ones(keys.size, np.int64),
            counts=known.astype(np.float64),
            sums=np.where(known, values, 0.0),
            minima=np.where(known, values, np.inf),
            maxima=np.where(known, values, -np.inf),
        )
    )


def merge_buckets(first: Buckets, second: Buckets) -> Buckets:
    """The buckets of all rows of both."""
    return _reduced(
        Buckets(**{name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in _FIELDS})
    )


def coarser(buckets: Buckets, times: int) -> Buckets:
    """The same rows in buckets that span `times` as many positions."""
    return _reduced(msgspec.structs.replace(buckets, keys=buckets.keys // times))


def span_that_fits(first: int, last: int, span: int, limit: int) -> int:
    """The span, doubled until the positions from `first` to `last` lie in at most `limit` buckets (two or more)."""
    while last // span - first // span >= limit:
        span *= 2
    return span


def _reduced(parts: Buckets) -> Buckets:
    """One bucket a key."""
    order = np.argsort(parts.keys, kind="stable")
    keys = parts.keys[order]
    starts = np.flatnonzero(np.concatenate([np.ones(min(keys.size, 1), bool), np.diff(keys) != 0]))
    if starts.size == 0:
        return parts
    return Buckets(
        keys=keys[starts],
        rows=np.add.reduceat(parts.rows[order], starts),
        counts=np.add.reduceat(parts.counts[order], starts, axis=0),
        sums=np.add.reduceat(parts.sums[order], starts, axis=0),
        minima=np.minimum.reduceat(parts.minima[order], starts, axis=0),
        maxima=np.maximum.reduceat(parts.maxima[order], starts, axis=0),
    )


_FIELDS = Buckets.__struct_fields__
