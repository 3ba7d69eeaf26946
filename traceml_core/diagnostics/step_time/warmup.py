"""Warm-up: the first steps that are much slower than the rest, because things are built or tuned in them."""

from __future__ import annotations

import numpy as np

from traceml_core.diagnostics.step_time.policy import StepTimePolicy
from traceml_core.statistics.derived import IN_STEP
from traceml_core.statistics.reduced import ReducedTable


def warmup_mask(table: ReducedTable, first: np.ndarray, kept: np.ndarray, policy: StepTimePolicy) -> np.ndarray:
    """Mark the warm-up steps of every start of every rank; a step that is warm-up on one rank is so on all.

    Looked at is a step's own work: step time without the wait for data, so that a slow loader's first steps are not
    taken for warm-up. Entries are ordered by rank, then time; only those in `kept` are steps, and only single steps can
    be warm-up: a history keeps the first of every start as they came, and they are what a long start is judged by.
    """
    mask = np.zeros(table.size, bool)
    places = np.flatnonzero(kept)
    if places.size == 0:
        return mask
    own_ns = np.nansum([table.sums[f"{phase.key}_ns"] for phase in IN_STEP[1:]], axis=0)
    starts = np.flatnonzero(np.diff(table.rank[places]) | np.diff(table.incarnation[places])) + 1
    for mine in np.split(places, starts):
        rolled = np.flatnonzero(table.rows[mine] > 1)
        single = mine[: rolled[0]] if rolled.size else mine
        mask[single[: warmup_count(own_ns[single], policy, int(table.rows[mine].sum()))]] = True
    warm: np.ndarray = kept & (table.rows == 1) & np.isin(first, first[mask])
    return warm


def warmup_count(own_ns: np.ndarray, policy: StepTimePolicy, steps: int | None = None) -> int:
    """How many of the first steps are warm-up. `steps` is how many there are in all, where `own_ns` is not of all.

    A step is slow when it is well above the median of the later half. Warm-up ends with the last slow step of a prefix
    that is mostly slow; a slow step far behind it (a recompile) belongs to the run. At least half of the steps stay.
    """
    count = own_ns.size
    share = int(policy.warmup_share * (count if steps is None else steps))
    bound = min(count // 2, max(policy.warmup_minimum_bound, share), policy.warmup_bound)
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
