"""A rank's steps as slices of time: rows that are kept one by one, and buckets for the steps between."""

from __future__ import annotations

import msgspec
import numpy as np

from traceml_core.core.phases import Phase
from traceml_core.statistics.reduced import ReducedTable

# The order in which a step's phases are laid out. A row holds how long each took, not when: it is schematic.
LAYOUT = (
    Phase.STARTUP,
    Phase.LOADER_START,
    Phase.INPUT_WAIT,
    Phase.H2D,
    Phase.FORWARD,
    Phase.BACKWARD,
    Phase.GRAD_SYNC,
    Phase.OPTIMIZER,
    Phase.VALIDATION,
    Phase.CHECKPOINT,
    Phase.LOGGING,
    Phase.CALLBACKS,
    Phase.TEARDOWN,
    Phase.UNATTRIBUTED,
)


class StepSlices(msgspec.Struct, frozen=True, eq=False):
    """Stretches of one life of a rank, in order of time, none overlapping another. Nanoseconds since the epoch.

    `first_step` and `last_step` are NaN outside steps. `rows` is how many rows a stretch stands for: more than one is
    a bucket of the roll-up. `phase_ns` (slices, phases of `LAYOUT`) holds sums over those rows, NaN where not measured.
    """

    started_ns: np.ndarray
    ended_ns: np.ndarray
    rows: np.ndarray
    first_step: np.ndarray
    last_step: np.ndarray
    phase_ns: np.ndarray


def step_slices(kept: ReducedTable, rolled: ReducedTable | None) -> StepSlices:
    """The slices of one life of a rank, from its kept rows and its buckets.

    A row may be kept and be part of a bucket as well: from the first such row on the bucket is cut off, and a bucket of
    which nothing is left is no slice.
    """
    tables = [kept] if rolled is None else [kept, rolled]
    started, ended = _joined(tables, "minima", "started_ns"), _joined(tables, "maxima", "ended_ns")
    is_bucket = np.concatenate([np.full(table.size, place == 1) for place, table in enumerate(tables)])
    if rolled is not None:
        kept_ns = np.sort(kept.minima["started_ns"])
        place = np.searchsorted(kept_ns, started)
        next_ns = np.append(kept_ns, np.inf)[place]
        ended = np.where(is_bucket, np.minimum(ended, next_ns), ended)
    order = np.argsort(started, kind="stable")
    order = order[ended[order] > started[order]]
    started, ended = started[order].astype(np.int64), ended[order].astype(np.int64)
    ended[:-1] = np.minimum(ended[:-1], started[1:])  # the clock of a slice's end may differ a little
    phases = np.stack([_joined(tables, "sums", f"{phase.key}_ns")[order] for phase in LAYOUT], axis=1)
    return StepSlices(
        started_ns=started,
        ended_ns=ended,
        rows=np.concatenate([table.rows for table in tables])[order],
        first_step=_joined(tables, "minima", "step")[order],
        last_step=_joined(tables, "maxima", "step")[order],
        phase_ns=phases,
    )


def phase_ends_ns(slices: StepSlices) -> np.ndarray:
    """Where each phase of each slice ends (slices, phases of `LAYOUT`); it begins where the one before it ends.

    Phases that together are longer than their slice (its clock is another one, or it was cut off) shrink alike.
    """
    spent = np.nan_to_num(slices.phase_ns)
    room, total = (slices.ended_ns - slices.started_ns).astype(np.float64), spent.sum(axis=1)
    scale = np.where(total > room, room / np.maximum(total, 1.0), 1.0)
    ends_ns: np.ndarray = slices.started_ns[:, None] + (np.cumsum(spent, axis=1) * scale[:, None]).astype(np.int64)
    return ends_ns


def lives(rank: np.ndarray, incarnation: np.ndarray) -> list[tuple[int, int]]:
    """Rank and incarnation of each life that has rows, by rank, then in the order in which they came."""
    pairs, first = np.unique(np.stack([rank, incarnation]), axis=1, return_index=True)
    order = np.lexsort((first, pairs[0]))
    return [(int(one), int(life)) for one, life in pairs[:, order].T]


def _joined(tables: list[ReducedTable], of: str, name: str) -> np.ndarray:
    return np.concatenate([getattr(table, of).get(name, np.full(table.size, np.nan)) for table in tables])
