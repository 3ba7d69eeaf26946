"""Warm-up: the first steps that are much slower than the rest, because things are built or tuned in them."""

from __future__ import annotations

import numpy as np

from traceml_core.diagnostics.step_time.policy import StepTimePolicy


def warmup_mask(
    rank: np.ndarray,
    incarnation: np.ndarray,
    step: np.ndarray,
    own_ns: np.ndarray,
    kept: np.ndarray,
    policy: StepTimePolicy,
) -> np.ndarray:
    """Mark the warm-up rows of every start of every rank; a step that is warm-up on one rank is so on all.

    `own_ns` is the step's own work: step time without the wait for data, so that a slow loader's first steps are not
    taken for warm-up. Rows are ordered by rank, then time; only those in `kept` are steps.
    """
    mask = np.zeros(rank.size, bool)
    places = np.flatnonzero(kept)
    if places.size == 0:
        return mask
    starts = np.flatnonzero(np.diff(rank[places]) | np.diff(incarnation[places])) + 1
    for mine in np.split(places, starts):
        mask[mine[: warmup_count(own_ns[mine], policy)]] = True
    return kept & np.isin(step, step[mask])


def warmup_count(own_ns: np.ndarray, policy: StepTimePolicy) -> int:
    """How many of the first steps are warm-up.

    A step is slow when it is well above the median of the later half. Warm-up ends with the last slow step of a prefix
    that is mostly slow; a slow step far behind it (a recompile) belongs to the run. At least half of the steps stay.
    """
    count = own_ns.size
    bound = min(count // 2, max(policy.warmup_minimum_bound, int(policy.warmup_share * count)), policy.warmup_bound)
    if bound < 1:
        return 0
    later = own_ns[count // 2 :]
    usual = float(np.median(later))
    spread = float(np.median(np.abs(later - usual)))
    limit = max(usual * policy.warmup_slow_factor, usual + policy.warmup_slow_spreads * spread)
    slow = own_ns[:bound] > limit
    mostly_slow = np.cumsum(slow) >= policy.warmup_slow_share * np.arange(1, bound + 1)
    ends = np.flatnonzero(slow & mostly_slow)
    return int(ends[-1]) + 1 if ends.size else 0
