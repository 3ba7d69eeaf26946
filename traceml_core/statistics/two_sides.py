"""The difference of two sides of runs, with its 95 % interval, in which the spread between runs counts.

Values are in any unit in which differences mean something: logarithms for ratios, milliseconds for parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

# Student's t, 97.5 % quantile, by degrees of freedom; between them it is close to linear in their reciprocal.
_FREEDOM = np.array([1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 60, math.inf])
_QUANTILE = np.array(
    [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.228, 2.179, 2.131, 2.086, 2.042, 2.0, 1.96]
)

_FOUND_IN_FOUR_OF_FIVE = 1 + 0.842 / 1.960
"""A true difference of so many half-widths is told from none in 80 % of all cases."""


class RunMean(msgspec.Struct, frozen=True):
    """What one run says: its mean, and by how much that may be off for reasons within the run (standard error)."""

    mean: float
    error: float


class SidesApart(msgspec.Struct, frozen=True, kw_only=True):
    """By how much the second side lies above the first: the estimate, and its 95 % interval to both sides.

    `run_spread` is the standard deviation of a single run; `spread_measured` says whether runs of one side told it.
    """

    estimate: float
    half_width: float
    run_spread: float
    spread_measured: bool

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.estimate - self.half_width

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.estimate + self.half_width

    @property
    def smallest_told(self) -> float:
        """The smallest true difference that data like these tell from none in four cases of five."""
        return self.half_width * _FOUND_IN_FOUR_OF_FIVE


def sides_apart(
    first: Sequence[RunMean], second: Sequence[RunMean], spread_floor: float, scatter_factor: float
) -> SidesApart:
    """The difference of the means of two sides of at least one run each.

    Where a side has several runs, their spread counts (Welch's t). Where neither has, `spread_floor` stands for what
    differs between runs, and each run's own error counts `scatter_factor` times: noise outlasts the run that shows it.
    """
    sides = [_side(runs) for runs in (first, second)]
    known = [side for side in sides if side.count > 1]
    if known:
        spread = max(side.variance for side in known)
        sides = [side if side.count > 1 else _Side(side.mean, max(spread, side.variance), 1) for side in sides]
        freedom = _welch_freedom(sides) if len(known) == 2 else float(known[0].count - 1)
    else:
        sides = [_Side(side.mean, scatter_factor**2 * side.variance + spread_floor**2, 1) for side in sides]
        freedom = math.inf
    error = math.sqrt(sum(side.variance / side.count for side in sides))
    return SidesApart(
        estimate=sides[1].mean - sides[0].mean,
        half_width=t_quantile(freedom) * error,
        run_spread=math.sqrt((sides[0].variance + sides[1].variance) / 2),
        spread_measured=bool(known),
    )


def runs_for(half_width: float, run_spread: float, most: int) -> int | None:
    """How many runs a side it takes, two at least, for an interval this narrow; null where more than `most`."""
    for count in range(2, most + 1):
        if t_quantile(2 * count - 2) * run_spread * math.sqrt(2 / count) <= half_width:
            return count
    return None


def t_quantile(freedom: float) -> float:
    """The 97.5 % quantile of Student's t, to 0.3 % or better; 1.96 where `freedom` is infinite."""
    return float(np.interp(1 / max(freedom, 1.0), 1 / _FREEDOM[::-1], _QUANTILE[::-1]))


class _Side(msgspec.Struct, frozen=True):
    mean: float
    variance: float
    count: int


def _side(runs: Sequence[RunMean]) -> _Side:
    means = np.array([run.mean for run in runs])
    within = float(np.mean([run.error**2 for run in runs]))
    # Runs that happen to agree better than they themselves can know are not better than that.
    variance = max(float(means.var(ddof=1)), within) if means.size > 1 else within
    return _Side(float(means.mean()), variance, means.size)


def _welch_freedom(sides: Sequence[_Side]) -> float:
    parts = [side.variance / side.count for side in sides]
    spread = sum(part**2 / (side.count - 1) for part, side in zip(parts, sides, strict=True))
    return sum(parts) ** 2 / spread if spread > 0 else math.inf
