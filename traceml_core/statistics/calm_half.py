"""What a series with disturbances in it would be without: the mean of its smaller half, and how far that may be off."""

from __future__ import annotations

import math

import numpy as np

_KEPT_SHARE = 0.5


def in_calm_half(values: np.ndarray) -> np.ndarray:
    """Mark the values up to the median."""
    kept: np.ndarray = values <= np.median(values)
    return kept


def pseudo_values(values: np.ndarray, kept: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A series whose weighted mean is that of the `kept` values, and scatters as that mean does.

    Values are clipped to their median, and their distances from the mean are widened by what was cut: the influence
    that each has on a mean of the smaller half (Tukey and McLaughlin, Sankhya A 25, 1963). Means of such series may be
    added, and resampled, like any others.
    """
    centre = np.average(values[kept], weights=weights[kept])
    clipped = np.minimum(values, np.median(values))
    scattered: np.ndarray = centre + (clipped - np.average(clipped, weights=weights)) / _KEPT_SHARE
    return scattered


def smoothed(values: np.ndarray) -> np.ndarray:
    """Each value's mean with its neighbours, as many as the root of the length: what comes in bursts is spread out."""
    window = np.ones(math.ceil(math.sqrt(values.size)))
    sums = np.convolve(values, window, "same")
    means: np.ndarray = sums / np.convolve(np.ones(values.size), window, "same")
    return means
