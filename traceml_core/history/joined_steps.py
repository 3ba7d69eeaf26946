"""The steps of a run, joined across its ranks, as the history knows them: what was joined, and what still can be."""

from __future__ import annotations

import msgspec
import numpy as np

from traceml_core.core.phases import Phase
from traceml_core.statistics.rank_join import RankJoin, join_rows, merge_joins
from traceml_core.statistics.reduced import ReducedTable


class JoinedSteps(msgspec.Struct, frozen=True, eq=False):
    """All steps beyond `after_step`, joined; those up to it are entries of one row in the reduced table."""

    after_step: float
    join: RankJoin


def joined_with(stored: RankJoin | None, later: ReducedTable | None) -> RankJoin:
    """What is stored, and the rows that came later, of which the last doing of each step counts."""
    joins = [] if stored is None else [stored]
    if later is not None:
        steps = later.sums["step"]
        order = np.lexsort((np.arange(steps.size), steps, later.rank))
        rank, steps = later.rank[order], steps[order]
        order = order[np.append((np.diff(steps) != 0) | (np.diff(rank) != 0), True)]
        phase_ns = np.stack([later.sums[f"{phase.key}_ns"][order] for phase in Phase])
        joins.append(join_rows(later.rank[order], later.sums["step"][order], phase_ns))
    return merge_joins(joins)
