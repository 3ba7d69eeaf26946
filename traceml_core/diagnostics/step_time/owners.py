"""Who spent the time around steps: callbacks, loggers and checkpointers by name."""

from __future__ import annotations

import msgspec
import numpy as np

from traceml_core.history.reader import Columns


class OwnerTime(msgspec.Struct, frozen=True, kw_only=True):
    """What one owner spent in one phase, on the rank where that is most.

    `habitual_s` leaves out its single longest time, so that what happened once does not look like a habit.
    """

    phase: str
    owner: str
    spent_s: float
    habitual_s: float
    longest_s: float
    steps: int


def owner_times(columns: Columns) -> tuple[OwnerTime, ...]:
    """Sum the rows of `owner_time` by phase and owner, those that spent most first."""
    if not columns or columns["rank"].size == 0:
        return ()
    keys = list(zip(columns["phase"].tolist(), columns["owner"].tolist(), strict=True))
    names = sorted(set(keys))
    place = {name: number for number, name in enumerate(names)}
    owner = np.array([place[key] for key in keys])
    found = []
    for number, (phase, name) in enumerate(names):
        mine = owner == number
        ranks = columns["rank"][mine]
        spent = {int(rank): float(columns["spent_ns"][mine][ranks == rank].sum()) for rank in np.unique(ranks)}
        worst = max(spent, key=lambda rank: spent[rank])
        longest = float(columns["max_ns"][mine][ranks == worst].max())
        found.append(
            OwnerTime(
                phase=phase,
                owner=name,
                spent_s=spent[worst] / 1e9,
                habitual_s=max(spent[worst] - longest, 0.0) / 1e9,
                longest_s=longest / 1e9,
                steps=int(columns["steps"][mine][ranks == worst].sum()),
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.spent_s, one.phase, one.owner)))
