"""From the values of single runs to the means that two sides are compared by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from traceml_core.statistics.block_bootstrap import mean_draws
from traceml_core.statistics.two_sides import RunMean


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """The mean of a run's values, each by its weight."""
    return float(np.average(values, weights=weights))


def run_mean(values: np.ndarray, weights: np.ndarray, unit: float) -> RunMean:
    """A run's mean in a unit, and how far it may be off."""
    return RunMean(weighted_mean(values, weights) / unit, float(_draws(values, weights).std()) / unit)


def run_logarithm(values: np.ndarray, weights: np.ndarray) -> RunMean:
    """The logarithm of a run's mean, which is above 0, and how far it may be off."""
    mean = weighted_mean(values, weights)
    return RunMean(math.log(mean), float(_draws(values, weights).std()) / mean)


def arithmetic_mean(means: Sequence[float]) -> float:
    """The mean of a side's runs."""
    return float(np.mean(means))


def logarithmic_mean(a: float, b: float) -> float:
    """What `b - a` is divided by to give the logarithm of `b / a`; both are above 0."""
    return a if math.isclose(a, b, rel_tol=1e-9) else (b - a) / math.log(b / a)


def _draws(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return values if values.size == 1 else mean_draws(values, weights)
