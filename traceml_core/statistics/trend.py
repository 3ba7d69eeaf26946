"""Growth that never comes back: how memory creep is told from warm-up, saw-teeth, plateaus and single jumps."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """How the floor of a series rose. Shares are of the whole rise; all 0 where it did not rise.

    The floor at a place is the smallest value from there on: what was never given back. `per_position` is the robust
    slope of the blocks' lows; `rising_pairs` the share of pairs of blocks of which the later is clearly higher, by at
    least a quarter of what an even rise gains in one block. `smallest_third` and `last_third` are the parts of the
    rise that fell into thirds of the way, `largest_jump` the part between two neighbouring blocks. `typical_gain`
    is the middle one of the blocks' gains, in units of what an even rise gains there (1: even, 0: most blocks gained
    nothing). `bulge` and `sag` are how far the floor strays from a straight line at most, above it (a rise that slows
    down) and below. Line and thirds are those of the positions, whatever the times between the values were.
    `significance` is the rise in units of what the scatter of the values about their trend would make of nothing.
    """

    blocks: int
    first: float
    rise: float
    per_position: float
    rising_pairs: float
    smallest_third: float
    last_third: float
    largest_jump: float
    typical_gain: float
    bulge: float
    sag: float
    significance: float


def floor_growth(positions: np.ndarray, values: np.ndarray, blocks: int) -> Growth | None:
    """Reduce `values` at non-decreasing `positions` to the growth of their floor; null where there are too few.

    `blocks` blocks of equally many values are formed, each reduced to its low; at least two values are needed for each,
    and at least six blocks.
    """
    if blocks < 6 or values.size < 2 * blocks:
        return None
    edges = np.linspace(0, values.size, blocks + 1).astype(int)
    lowest = np.array([begin + np.argmin(values[begin:end]) for begin, end in pairwise(edges)])
    lows, places = values[lowest].astype(np.float64), positions[lowest].astype(np.float64)
    floor = np.minimum.accumulate(lows[::-1])[::-1]
    rise = float(floor[-1] - floor[0])
    earlier, later = np.triu_indices(blocks, 1)
    apart = places[later] - places[earlier]
    differences = lows[later] - lows[earlier]
    slopes = differences[apart > 0] / apart[apart > 0]
    slope = float(np.median(slopes)) if slopes.size else 0.0
    way = (places - places[0]) / max(places[-1] - places[0], 1e-9)
    thirds = np.diff(np.interp(np.linspace(0, 1, 4), way, floor))
    whole = rise if rise > 0 else 1.0
    gains, ways = np.diff(floor) / whole, np.diff(way)
    strays = (floor - floor[0]) / whole - way if rise > 0 else np.zeros(blocks)
    moves = ways > 0.25 / (blocks - 1)
    return Growth(
        blocks=blocks,
        first=float(floor[0]),
        rise=rise,
        per_position=slope,
        rising_pairs=float((differences > rise / (4 * (blocks - 1))).mean()),
        smallest_third=float(thirds.min()) / whole,
        last_third=float(thirds[-1]) / whole,
        largest_jump=float(gains.max()),
        typical_gain=float(np.median(gains[moves] / ways[moves])) if moves.any() else 0.0,
        bulge=float(strays.max()),
        sag=float(-strays.min()),
        significance=rise / _chance(values - slope * positions),
    )


def _chance(residuals: np.ndarray) -> float:
    """The rise that values with this scatter and no trend show by chance (one standard error of a fitted slope)."""
    scatter = 1.4826 * float(np.median(np.abs(residuals - np.median(residuals))))
    return max(scatter * float(np.sqrt(12 / residuals.size)), 1e-9)


def evened(
    rows: np.ndarray, positions: np.ndarray, times: np.ndarray, lows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries of so many rows, put together to about as many rows in each as the largest has.

    Positions and times are means over an entry's rows, `lows` their smallest values. A trend is then judged over the
    whole of a series, and not mostly over the part that is known in more detail. Entries of one row stay as they are.
    """
    size = int(rows.max(initial=1))
    if size == 1:
        return positions, times, lows
    starts = np.flatnonzero(np.diff((np.cumsum(rows) - rows) // size, prepend=-1))
    together = np.add.reduceat(rows, starts)
    mean_position = np.add.reduceat(positions * rows, starts) / together
    return mean_position, np.add.reduceat(times * rows, starts) / together, np.minimum.reduceat(lows, starts)
