"""A table of the history, reduced: an entry for each row, or for consecutive rows that were rolled up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from traceml_core.statistics.derived import derive
from traceml_core.statistics.sketch import Sketch, merge, sketch_of

Arrays = Mapping[str, np.ndarray]


class ReducedTable(msgspec.Struct, frozen=True, kw_only=True):
    """Arrays of one length n, an entry each, of one rank's rows in order of arrival.

    `rows` is how many rows an entry holds; entries of one row are exact. By column: `texts` has what is no number;
    `counts` how many of the rows measured it, `sums` their sum, `minima` and `maxima` the extremes (all three NaN where
    none did). Quantiles of rolled-up entries come from `sketches`, by column, of which `segment` is the number (-1 on
    entries of one row): one sketch covers many entries.
    """

    rank: np.ndarray
    incarnation: np.ndarray
    rows: np.ndarray
    texts: Arrays
    counts: Arrays
    sums: Arrays
    minima: Arrays
    maxima: Arrays
    segment: np.ndarray
    sketches: Sequence[Mapping[str, Sketch]] = ()

    @property
    def size(self) -> int:
        """The number of entries."""
        return int(self.rank.size)

    @property
    def ranks(self) -> list[int]:
        """The ranks that have rows."""
        return [int(rank) for rank in np.unique(self.rank)]

    def means(self, name: str) -> np.ndarray:
        """A column's mean in each entry; NaN where it was not measured, or the table does not have it."""
        if name not in self.sums:
            return np.full(self.size, np.nan)
        return self.sums[name] / np.maximum(self.counts[name], 1)

    def total(self, name: str, weight: np.ndarray | float = 1.0) -> float:
        """A column's sum over all entries."""
        return float(np.nansum(self.sums[name] * weight))

    def mean(self, name: str, weight: np.ndarray | float = 1.0) -> float | None:
        """A column's mean over all rows that measured it; null where none did."""
        count = float((self.counts[name] * weight).sum())
        return self.total(name, weight) / count if count else None

    def smallest(self, name: str) -> float | None:
        """A column's smallest value; null where it was not measured."""
        known = self.minima[name][self.counts[name] > 0]
        return float(known.min()) if known.size else None

    def largest(self, name: str) -> float | None:
        """A column's largest value; null where it was not measured."""
        known = self.maxima[name][self.counts[name] > 0]
        return float(known.max()) if known.size else None

    def last(self, name: str) -> float | None:
        """A column's value in the last entry that measured it; null where none did."""
        known = self.means(name)[self.counts[name] > 0]
        return float(known[-1]) if known.size else None

    def take(self, entries: np.ndarray) -> ReducedTable:
        """The entries at these places, or where this is true."""
        if entries.size == self.size and entries.dtype != bool and bool((np.diff(entries) == 1).all()):
            return self  # all of them, in order: a large table is not copied for nothing
        memo: dict[int, np.ndarray] = {}
        by_column = {name: _taken(getattr(self, name), entries, memo) for name in _BY_COLUMN}
        plain = {name: getattr(self, name)[entries] for name in _PLAIN}
        return msgspec.structs.replace(self, **plain, **by_column)

    def by_rank(self, places: np.ndarray | None = None) -> dict[int, np.ndarray]:
        """The places of each rank's entries, in order; of those that are given, or of all."""
        places = np.arange(self.size) if places is None else places
        if places.size == 0:
            return {}
        owners = self.rank[places]
        if (owners == owners[0]).all():  # the usual run, whose report training waits for
            return {int(owners[0]): places}
        places = places[np.argsort(owners, kind="stable")]
        edges = np.flatnonzero(np.diff(self.rank[places])) + 1
        return {int(self.rank[part[0]]): part for part in np.split(places, edges)}

    def by_life(self, places: np.ndarray) -> list[np.ndarray]:
        """These places, which are those of one rank, by its incarnations; each in the order given."""
        lives = self.incarnation[places]
        return [places[lives == life] for life in dict.fromkeys(lives.tolist())]

    def sketches_by_rank(self, name: str, weight: np.ndarray | None = None) -> dict[int, Sketch]:
        """Each rank's sketch of a column, over entries weighted by the share of them that counts (null: all of all).

        Ranks that did not measure it are left out. Count, sum and mean follow the weights; where a sketch covers
        entries that count and some that do not, a share of each of its bins counts.
        """
        if name not in self.counts:
            return {}
        weighted = self.counts[name] if weight is None else self.counts[name] * weight
        known = np.flatnonzero(weighted > 0)
        return {rank: self._sketch(name, places, weighted) for rank, places in self.by_rank(known).items()}

    def _sketch(self, name: str, places: np.ndarray, weighted: np.ndarray) -> Sketch:
        rolled = self.segment[places] >= 0
        exact = sketch_of(self.sums[name][places[~rolled]])
        if not rolled.any():
            return exact
        parts = [exact]
        for segment in np.unique(self.segment[places[rolled]]):
            sketch = self.sketches[segment].get(name, Sketch())
            part = places[self.segment[places] == segment]
            parts.append(sketch.thinned(float(weighted[part].sum()) / max(sketch.count, 1)))
        merged = merge(parts)
        share = weighted[places] / self.counts[name][places]
        mean = float((self.sums[name][places] * share).sum() / weighted[places].sum())
        return msgspec.structs.replace(
            merged,
            total=mean * merged.count,
            minimum=float(self.minima[name][places].min()),
            maximum=float(self.maxima[name][places].max()),
        )


def reduced(table: str, columns: Arrays) -> ReducedTable:
    """A table's rows, an entry each. `columns` has `rank`; NaN, or a text of None, is what was not measured."""
    rank = columns["rank"]
    own = {name: values for name, values in columns.items() if name not in KEYS}
    texts = {name: values for name, values in own.items() if values.dtype == object}
    numbers = derive(table, {name: values for name, values in own.items() if name not in texts})
    values = {name: array.astype(np.float64, copy=False) for name, array in numbers.items()}
    return ReducedTable(
        rank=rank,
        incarnation=columns.get("incarnation", np.zeros(rank.size, np.int64)),
        rows=np.ones(rank.size, np.int64),
        texts=texts,
        counts=_counts(values),
        sums=values,
        minima=values,
        maxima=values,
        segment=np.full(rank.size, -1, np.int64),
    )


def interleave(first: ReducedTable, second: ReducedTable, order: np.ndarray) -> ReducedTable:
    """The entries of both in this order, which gives places in the one followed by the other.

    Column by column, since there may be very many: no second copy of all is held on the way.
    """
    shift = len(first.sketches)
    nothing = np.full(order.size, np.nan)
    known = {name for table in (first, second) for name, counts in table.counts.items() if counts.any()}

    def joined(name: str) -> dict[str, np.ndarray]:
        left, right = getattr(first, name), getattr(second, name)
        return {
            column: both(left[column], right[column]) if column in known or name in _ALWAYS else nothing
            for column in left
            if column in right
        }

    def both(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        ordered: np.ndarray = np.concatenate([left, right])[order]
        return ordered

    return ReducedTable(
        rank=both(first.rank, second.rank),
        incarnation=both(first.incarnation, second.incarnation),
        rows=both(first.rows, second.rows),
        texts=joined("texts"),
        counts=joined("counts"),
        sums=joined("sums"),
        minima=joined("minima"),
        maxima=joined("maxima"),
        segment=both(first.segment, np.where(second.segment >= 0, second.segment + shift, -1)),
        sketches=(*first.sketches, *second.sketches),
    )


def _taken(arrays: Arrays, entries: np.ndarray, memo: dict[int, np.ndarray]) -> Arrays:
    """These entries of all columns; columns that share an array go on sharing one."""
    for values in arrays.values():
        if id(values) not in memo:
            memo[id(values)] = values[entries]
    return {column: memo[id(values)] for column, values in arrays.items()}


def _counts(values: Arrays) -> Arrays:
    """Whether each value was measured. Most columns have all of them, or none, and share an array."""
    rows = next((array.size for array in values.values()), 0)
    all_rows, no_rows = np.ones(rows), np.zeros(rows)

    def counted(array: np.ndarray) -> np.ndarray:
        missing = np.isnan(array)
        if missing.any():
            return no_rows if missing.all() else (~missing).astype(np.float64)
        return all_rows

    return {name: counted(array) for name, array in values.items()}


KEYS = ("rank", "incarnation", "seq")
_PLAIN = ("rank", "incarnation", "rows", "segment")
_ALWAYS = ("texts", "counts")
_BY_COLUMN = ("texts", "counts", "sums", "minima", "maxima")
