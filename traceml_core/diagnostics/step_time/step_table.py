"""The steps of a run, put in order: an entry for one step of a rank or for several, and what lay around the steps."""

from __future__ import annotations

import msgspec
import numpy as np

from traceml_core.core.phases import Phase
from traceml_core.diagnostics.redone import redone_share
from traceml_core.diagnostics.step_time.policy import StepTimePolicy
from traceml_core.diagnostics.step_time.warmup import warmup_mask
from traceml_core.statistics.derived import IN_STEP
from traceml_core.statistics.reduced import ReducedTable

__all__ = ["IN_STEP", "StepTable", "step_table"]


class StepTable(msgspec.Struct, frozen=True, kw_only=True):
    """Arrays of one length n, ordered by rank, then time; each entry is one row of `table`, or several rolled up.

    `first` and `last` are the steps of an entry, NaN on records around steps. `phase_ns` is (number of phases, n), the
    sum over an entry's rows: the partition, device time where its events were resolved and host time elsewhere, NaN
    where not measured. `around` marks records around steps, `before` what came before a rank's first step. The
    others are shares of an entry, 0 to 1: `redone` what a later entry did again, `warmup` what is not to be averaged
    in, `judged` what is. Only where work was redone, in an entry of several steps, does a share lie between the two.
    `ranks` are those that have entries.
    """

    table: ReducedTable
    first: np.ndarray
    last: np.ndarray
    phase_ns: np.ndarray
    around: np.ndarray
    before: np.ndarray
    redone: np.ndarray
    warmup: np.ndarray
    judged: np.ndarray
    ranks: tuple[int, ...]

    @property
    def rank(self) -> np.ndarray:
        """The rank of each entry."""
        return self.table.rank

    @property
    def counted(self) -> np.ndarray:
        """The share of each entry that numbers are made of: what is judged; warm-up where that is all there is."""
        return self.judged if self.judged.any() else self.warmup

    @property
    def stepping_ranks(self) -> list[int]:
        """The ranks that have a counted step; the others have nothing in common with them."""
        return [int(rank) for rank in np.unique(self.rank[self.counted > 0])]

    def is_measured(self, phase: Phase, weight: np.ndarray) -> bool:
        """Whether an entry of those that have a weight has a number for the phase."""
        return bool((self.table.counts[f"{phase.key}_ns"] * weight).any())

    @property
    def rows(self) -> np.ndarray:
        """How many steps each entry holds."""
        return self.table.rows

    @property
    def interval_ns(self) -> np.ndarray:
        """The sum of each entry's step intervals."""
        return self.table.sums["interval_ns"]

    @property
    def step_ns(self) -> np.ndarray:
        """The sum of each entry's step times: the in-step phases and what nothing claimed."""
        return self.table.sums["step_ns"]


def step_table(table: ReducedTable | None, policy: StepTimePolicy) -> StepTable | None:
    """Put the entries of `step_time` in order; null where there are none."""
    if table is None or table.size == 0:
        return None
    table = table.take(np.lexsort((table.minima["started_ns"], _lives(table.incarnation), table.rank)))
    first, last = table.minima["step"], table.maxima["step"]
    is_step = ~np.isnan(first)
    redone = np.zeros(table.size)
    redone[is_step] = redone_share(table.rank[is_step], table.incarnation[is_step], first[is_step], last[is_step])
    kept = is_step & (redone < 1)
    warmup = warmup_mask(table, first, kept, policy)
    return StepTable(
        table=table,
        first=first,
        last=last,
        phase_ns=np.stack([table.sums[f"{phase.key}_ns"] for phase in Phase]),
        around=~is_step,
        before=_before_first_step(table, is_step),
        redone=redone,
        warmup=warmup.astype(np.float64),
        judged=np.where(kept & ~warmup, 1 - redone, 0.0),
        ranks=tuple(table.ranks),
    )


def _lives(incarnation: np.ndarray) -> np.ndarray:
    """Incarnations by when their first row came: the wall clock may have been set back between two of one rank."""
    changes = np.flatnonzero(np.diff(incarnation, prepend=~incarnation[:1]))
    known, first = np.unique(incarnation[changes], return_index=True)
    lives: np.ndarray = changes[first][np.searchsorted(known, incarnation)]
    return lives


def _before_first_step(table: ReducedTable, is_step: np.ndarray) -> np.ndarray:
    before = np.zeros(table.size, bool)
    for mine in table.by_rank().values():
        before[mine] = np.cumsum(is_step[mine]) == 0
    return before
