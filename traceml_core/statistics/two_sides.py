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

_NO_SPREAD = 1e-18
"""A variance so small is none: runs that cannot differ weigh the same."""

_FEWEST_RUNS = 1.001
"""Several runs are worth at least so many, however much one of them outweighs the others."""

_EXPECTED_FREEDOM = 4.0
"""The spread that is expected of runs weighs as that of five further ones; less, the more widely they do spread."""

_UNSEEN_SPREAD_FACTOR = 1.25
"""Where no side's runs show their spread, it may be so many times what is expected: the machine may be a busy one."""


class RunMean(msgspec.Struct, frozen=True):
    """What one run says: its mean, and by how much that may be off for reasons within the run (standard error)."""

    mean: float
    error: float


class SidesApart(msgspec.Struct, frozen=True, kw_only=True):
    """By how much the second side's mean lies above the first's, and the 95 % interval around that, to both sides.

    `run_spread` is the standard deviation of a single run; `spread_measured` says whether runs of one side told it.
    """

    first: float
    second: float
    half_width: float
    run_spread: float
    spread_measured: bool

    @property
    def estimate(self) -> float:
        """The difference of the means."""
        return self.second - self.first

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
    first: Sequence[RunMean],
    second: Sequence[RunMean],
    spread_floor: float,
    scatter_factor: float,
    unseen_spread: float = 0.0,
) -> SidesApart:
    """The difference of the means of two sides of at least one run each.

    Of a single run the spread is expected to be `spread_floor`, and with it its own error `scatter_factor` times: what
    disturbs a run lasts longer than its scatter tells. With one run a side `unseen_spread` comes on top, and a quarter
    more of all that. Where a side has several runs, their spread counts together with the expected one, by their
    degrees of freedom (Welch's t with moderated variances: Smyth, 2004): a few runs that happen to agree are not known
    to. Each counts by how little spread is expected of it: a disturbed run says less.
    """
    sides = [_side(runs, spread_floor, scatter_factor) for runs in (first, second)]
    known = [side for side in sides if side.count > 1]
    freedom = math.inf
    if known:
        spread = max(side.variance for side in known)
        sides = [side if side.count > 1 else _Side(side.mean, max(spread, side.variance), 1, 0) for side in sides]
        freedom = _welch_freedom(sides) if len(known) == 2 else known[0].freedom
    else:
        sides = [_unseen(side, unseen_spread) for side in sides]
    error = math.sqrt(sum(side.variance / side.count for side in sides))
    return SidesApart(
        first=sides[0].mean,
        second=sides[1].mean,
        half_width=t_quantile(freedom) * error,
        run_spread=math.sqrt((sides[0].variance + sides[1].variance) / 2),
        spread_measured=bool(known),
    )


def runs_for(half_width: float, run_spread: float, most: int) -> int | None:
    """How many runs a side it takes, two at least, for an interval this narrow; null where more than `most`."""
    for count in range(2, most + 1):
        freedom = 2 * (count - 1 + _EXPECTED_FREEDOM)
        if t_quantile(freedom) * run_spread * math.sqrt(2 / count) <= half_width:
            return count
    return None


def t_quantile(freedom: float) -> float:
    """The 97.5 % quantile of Student's t, to 0.3 % or better; 1.96 where `freedom` is infinite."""
    return float(np.interp(1 / max(freedom, 1.0), 1 / _FREEDOM[::-1], _QUANTILE[::-1]))


class _Side(msgspec.Struct, frozen=True):
    """`variance` is that of a single run, known as well as `freedom` degrees of freedom have it known.

    `count` is how many equally good runs the side is worth.
    """

    mean: float
    variance: float
    count: float
    freedom: float


def _side(runs: Sequence[RunMean], spread_floor: float, scatter_factor: float) -> _Side:
    means = np.array([run.mean for run in runs])
    expected = np.array([spread_floor**2 + (scatter_factor * run.error) ** 2 for run in runs])
    if means.size == 1:
        return _Side(float(means[0]), float(expected[0]), 1, 0)
    precisions = 1 / np.maximum(expected, _NO_SPREAD)
    weights = precisions / precisions.sum()
    mean = float((weights * means).sum())
    count = float(1 / (weights**2).sum())
    # Runs that happen to agree better than they themselves can know are not better than that.
    within = float((weights * np.array([run.error**2 for run in runs])).sum())
    count = max(count, _FEWEST_RUNS)
    shown = float((weights * (means - mean) ** 2).sum()) / (1 - 1 / count)
    usual = 1 / float(precisions.mean())
    trust = _EXPECTED_FREEDOM * min(usual / max(shown, _NO_SPREAD), 1.0)
    freedom = count - 1 + trust
    return _Side(mean, max(((count - 1) * shown + trust * usual) / freedom, within), count, freedom)


def _unseen(side: _Side, unseen_spread: float) -> _Side:
    return _Side(side.mean, _UNSEEN_SPREAD_FACTOR**2 * (side.variance + unseen_spread**2), 1, 0)


def _welch_freedom(sides: Sequence[_Side]) -> float:
    parts = [side.variance / side.count for side in sides]
    spread = sum(part**2 / side.freedom for part, side in zip(parts, sides, strict=True))
    return sum(parts) ** 2 / spread if spread > 0 else math.inf
