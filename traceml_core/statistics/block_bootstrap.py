"""How far the mean of a run's series may be off: a moving-block bootstrap.

Neighbouring steps are alike (a busy minute, a slow file), so single steps must not be drawn as if each were news of its
own: stretches of neighbours are drawn instead, with replacement, until they make a series as long as the first.
Source: Künsch, The jackknife and the bootstrap for general stationary observations, Annals of Statistics 17 (1989).
"""

from __future__ import annotations

import math

import numpy as np

DRAWS = 2_000
SEED = 20_260_101


def mean_draws(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted means of `DRAWS` series made from stretches of this one; the same ones for the same length.

    A stretch is as many neighbours as the root of the length: long enough for what lasts, short enough to be many.
    """
    length = math.ceil(math.sqrt(values.size))
    sums, totals = _stretch_sums(values * weights, length), _stretch_sums(weights, length)
    starts = np.random.default_rng(SEED).integers(0, sums.size, (DRAWS, math.ceil(values.size / length)))
    means: np.ndarray = sums[starts].sum(axis=1) / totals[starts].sum(axis=1)
    return means


def _stretch_sums(values: np.ndarray, length: int) -> np.ndarray:
    """The sum of each stretch of so many neighbours, by the place where it begins."""
    ends = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    sums: np.ndarray = ends[length:] - ends[:-length]
    return sums
