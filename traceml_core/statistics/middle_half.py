"""What is typical of a series with stalls in it: the mean of its middle half, and how far that may be off."""

from __future__ import annotations

import numpy as np

_KEPT_SHARE = 0.5


def in_middle_half(values: np.ndarray) -> np.ndarray:
    """Mark the values that lie between the quartiles, these included."""
    low, high = np.quantile(values, (0.25, 0.75))
    kept: np.ndarray = (values >= low) & (values <= high)
    return kept


def pseudo_values(values: np.ndarray, kept: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A series whose weighted mean is that of the `kept` values, and scatters as that mean does.

    Values are clipped to their quartiles, and their distances from the mean are widened by what was cut: the influence
    that each has on a mean of the middle half (Tukey and McLaughlin, Sankhya A 25, 1963). Means of such series may be
    added, and resampled, like any others.
    """
    centre = np.average(values[kept], weights=weights[kept])
    clipped = np.clip(values, *np.quantile(values, (0.25, 0.75)))
    scattered: np.ndarray = centre + (clipped - np.average(clipped, weights=weights)) / _KEPT_SHARE
    return scattered
