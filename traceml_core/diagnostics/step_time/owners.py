"""Who spent the time around steps: callbacks, loggers and checkpointers by name."""

from __future__ import annotations

import msgspec
import numpy as np

from traceml_core.statistics.reduced import ReducedTable


class OwnerTime(msgspec.Struct, frozen=True, kw_only=True):
    """What one owner spent in one phase, on the rank where that is most; what is known to be warm-up is left out.

    `habitual_s` leaves out its single longest time, so that what happened once does not look like a habit.
    """

    phase: str
    owner: str
    spent_s: float
    habitual_s: float
    longest_s: float
    steps: int


def owner_times(table: ReducedTable | None, warmup_steps: np.ndarray) -> tuple[OwnerTime, ...]:
    """Sum `owner_time` by phase and owner, those that spent most first.

    An entry has the time of some consecutive steps: it is warm-up where all of them are.
    """
    if table is None or table.size == 0:
        return ()
    table = table.take(~_lies_within(table, np.unique(warmup_steps)))
    keys = list(zip(table.texts["phase"].tolist(), table.texts["owner"].tolist(), strict=True))
    places: dict[tuple[str, str], list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    found = [_owner_time(phase, owner, table.take(np.array(mine))) for (phase, owner), mine in places.items()]
    return tuple(sorted(found, key=lambda one: (-one.spent_s, one.phase, one.owner)))


def _lies_within(table: ReducedTable, steps: np.ndarray) -> np.ndarray:
    """Whether all steps of an entry are among these, which rise; false where an entry names none."""
    first, last = table.minima["first_step"], table.maxima["last_step"]
    found = np.searchsorted(steps, last, "right") - np.searchsorted(steps, first, "left")
    within: np.ndarray = found == last - first + 1
    return within


def _owner_time(phase: str, owner: str, table: ReducedTable) -> OwnerTime:
    of_rank = table.by_rank()
    spent = {rank: float(table.sums["spent_ns"][mine].sum()) for rank, mine in of_rank.items()}
    worst = max(spent, key=lambda rank: spent[rank])
    longest = float(table.maxima["max_ns"][of_rank[worst]].max())
    return OwnerTime(
        phase=phase,
        owner=owner,
        spent_s=spent[worst] / 1e9,
        habitual_s=max(spent[worst] - longest, 0.0) / 1e9,
        longest_s=longest / 1e9,
        steps=int(table.sums["steps"][of_rank[worst]].sum()),
    )
