"""The lag of a step: what its slowest rank did longer than the median of the other ranks, and in which phases.

In training that synchronises at every step the slowest rank sets the pace, and the others wait for it: its lag is what
the job would have saved, had that rank been like them. Own work is compared, the wait for gradients left out, and phase
by phase in the order of a step: whoever waits for another rank does so after the cause, not before it. So a rank that
catches up in a later phase (because there it waited: for counts to be gathered, for buffers to be broadcast) is no
laggard, and the lag is the largest that showed at the end of any phase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from traceml_core.core.phases import AROUND_STEP_PHASES, Phase
from traceml_core.statistics.others import Middle, middle_of

# A step's own work in the order in which it is done. What nothing claims may lie anywhere in a step and may itself be
# a wait, so it comes last; so do the phases around steps before it.
IN_ORDER = (
    Phase.INPUT_WAIT,
    Phase.H2D,
    Phase.FORWARD,
    Phase.BACKWARD,
    Phase.OPTIMIZER,
    *AROUND_STEP_PHASES,
    Phase.UNATTRIBUTED,
)
# All that is sure to be own work where the wait for gradients was not told apart from backward.
_OWN_WITHOUT_SPLIT = (Phase.INPUT_WAIT, Phase.H2D)


def comparable(spent_ns: np.ndarray, split: np.ndarray) -> np.ndarray:
    """The nanoseconds without NaN, such that a phase of a step means the same on every rank.

    What one rank did not measure is unattributed there, and for that step is made so on the others.
    """
    known_ns: np.ndarray = np.nan_to_num(spent_ns)
    known_ns[Phase.GRAD_SYNC, ~split] = 0.0
    for phase in IN_ORDER[:-1]:
        missing = np.isnan(spent_ns[phase]).any(axis=1)
        if missing.any():
            known_ns[Phase.UNATTRIBUTED, missing] += known_ns[phase, missing]
            known_ns[phase, missing] = 0.0
    return known_ns


class Lags(msgspec.Struct, frozen=True):
    """Of each step the rank that lagged (its place), and by how much; per phase and rank, and each rank's excess."""

    rank: np.ndarray
    lag_ns: np.ndarray
    blame_ns: np.ndarray
    excess_ns: np.ndarray


def step_lags(known_ns: np.ndarray, split: np.ndarray, taken: Sequence[Phase], middles: Mapping[Phase, Middle]) -> Lags:
    """Follow the ranks through the step, and keep the moment when the slowest was furthest behind the others."""
    steps, ranks = known_ns.shape[1:]
    so_far = np.zeros((steps, ranks))
    best = np.full(steps, -1.0)
    slowest, until, excess_ns = np.zeros(steps, np.int64), np.zeros(steps, np.int64), np.zeros((steps, ranks))
    for place, phase in enumerate(taken):
        so_far += known_ns[phase]
        middle = middle_of(so_far)
        rank, lag = slowest_of(so_far, middle)
        longer = lag > best
        if phase not in _OWN_WITHOUT_SPLIT:
            longer &= split
        best[longer], slowest[longer], until[longer] = lag[longer], rank[longer], place
        excess_ns[longer] = (so_far - middle.of_others(so_far))[longer]
    lag_ns = np.maximum(best, 0.0)
    blame_ns = np.zeros((len(Phase), ranks))
    if taken:
        every = np.arange(steps)
        over = np.stack([_over(known_ns[phase][every, slowest], middles[phase]) for phase in taken])
        over[np.arange(len(taken))[:, None] > until] = 0.0
        part = over / np.maximum(over.sum(axis=0), 1e-9) * lag_ns
        for place, phase in enumerate(taken):
            blame_ns[phase] = np.bincount(slowest, part[place], ranks)
    return Lags(slowest, lag_ns, blame_ns, excess_ns)


def slowest_of(values: np.ndarray, middle: Middle) -> tuple[np.ndarray, np.ndarray]:
    """The place of the largest value of each row, and by how much it exceeds the median of the others."""
    place = values.argmax(axis=1)
    return place, _over(values[np.arange(place.size), place], middle)


def _over(values: np.ndarray, middle: Middle) -> np.ndarray:
    over: np.ndarray = np.maximum(values - middle.of_others(values), 0.0)
    return over
