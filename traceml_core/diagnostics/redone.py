"""Steps that were done again after a restart: their last doing counts, the earlier ones are redone work."""

from __future__ import annotations

import numpy as np


def redone_share(rank: np.ndarray, incarnation: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Of each entry of steps `first` to `last`, ordered by rank, then time: the share that was done again later.

    Where steps go back, or an incarnation begins, so does another pass; a pass does all steps from its first to its
    last. Entries of one step are redone or not; of one with more, a part may be.
    """
    share = np.zeros(rank.size)
    if rank.size == 0:
        return share
    starts = np.flatnonzero((np.diff(rank) != 0) | (np.diff(incarnation) != 0) | (first[1:] <= last[:-1])) + 1
    passes = np.split(np.arange(rank.size), starts)
    later: list[tuple[float, float]] = []
    for number in range(len(passes) - 1, -1, -1):
        mine = passes[number]
        if number + 1 < len(passes) and rank[mine[0]] != rank[passes[number + 1][0]]:
            later = []
        for begin, end in later:
            covered = np.minimum(last[mine], end) - np.maximum(first[mine], begin) + 1
            share[mine] += np.maximum(covered, 0) / (last[mine] - first[mine] + 1)
        later = _united(later, (float(first[mine].min()), float(last[mine].max())))
    return share


def _united(ranges: list[tuple[float, float]], new: tuple[float, float]) -> list[tuple[float, float]]:
    """Ranges that do not overlap, of the same steps."""
    united: list[tuple[float, float]] = []
    for begin, end in sorted([*ranges, new]):
        if united and begin <= united[-1][1] + 1:
            united[-1] = (united[-1][0], max(united[-1][1], end))
        else:
            united.append((begin, end))
    return united
