"""One rank against the others: the median of all ranks but itself, for whole arrays of steps at once."""

from __future__ import annotations

import msgspec
import numpy as np


class Middle(msgspec.Struct, frozen=True):
    """The middle of each row of an array (steps, ranks): what the median of the others is made of.

    `below`, `middle` and `above` are the order statistics around the median; with an even number of ranks `middle` is
    unused and equals `below`.
    """

    below: np.ndarray
    middle: np.ndarray
    above: np.ndarray
    even: bool

    def of_others(self, values: np.ndarray) -> np.ndarray:
        """The median of the other ranks, for `values` of these rows (any shape that has a row's steps first)."""
        below, middle, above = (
            part.reshape(part.shape + (1,) * (values.ndim - 1)) for part in (self.below, self.middle, self.above)
        )
        if self.even:
            others: np.ndarray = np.where(values > below, below, above)
        else:
            lower, upper = (below + middle) / 2, (middle + above) / 2
            others = np.where(values > middle, lower, np.where(values < middle, upper, (below + above) / 2))
        return others


def middle_of(values: np.ndarray) -> Middle:
    """The middle of each row of `values`, an array (steps, ranks) of at least two ranks without NaN.

    Of two ranks 'the median of the others' is the other one. The plain median of two would lie halfway between them,
    and hide half of what the slower one costs.
    """
    ranks = values.shape[1]
    half = ranks // 2
    even = ranks % 2 == 0
    places = [half - 1, half] if even else [half - 1, half, half + 1]
    parted = np.sort(values, axis=1) if ranks < 32 else np.partition(values, places, axis=1)
    below, above = parted[:, places[0]], parted[:, places[-1]]
    return Middle(below, below if even else parted[:, half], above, even)
