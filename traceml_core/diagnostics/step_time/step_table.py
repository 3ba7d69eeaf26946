"""The step rows of a run, put in order: one row a rank and step, its partition, and what lay around the steps."""

from __future__ import annotations

import msgspec
import numpy as np

from traceml_core.core.phases import STEP_PHASES, Phase
from traceml_core.diagnostics.step_time.policy import StepTimePolicy
from traceml_core.diagnostics.step_time.warmup import warmup_mask
from traceml_core.history.reader import Columns

IN_STEP = (*STEP_PHASES, Phase.UNATTRIBUTED)


class StepTable(msgspec.Struct, frozen=True, kw_only=True):
    """Arrays of one length n, ordered by rank, then time.

    `step` is NaN on records around steps. `phase_ns` is (number of phases, n): the partition, device time where its
    events were resolved (`on_device`) and host time elsewhere; `host_ns` is the host's. NaN where not measured.
    `before` marks what came before a rank's first step, `redone` the steps that a later row did again, `warmup` the
    steps that are not to be averaged in, `judged` the steps that are. `ranks` are those that have rows.
    """

    rank: np.ndarray
    step: np.ndarray
    interval_ns: np.ndarray
    phase_ns: np.ndarray
    host_ns: np.ndarray
    on_device: np.ndarray
    samples: np.ndarray
    tokens: np.ndarray
    before: np.ndarray
    redone: np.ndarray
    warmup: np.ndarray
    judged: np.ndarray
    ranks: tuple[int, ...]

    @property
    def step_ns(self) -> np.ndarray:
        """Step time: the in-step phases and what nothing claimed."""
        step_ns: np.ndarray = np.nansum(self.phase_ns[list(IN_STEP)], axis=0)
        return step_ns


def step_table(columns: Columns, policy: StepTimePolicy) -> StepTable | None:
    """Put the columns of `step_time` in order; null where there are no rows."""
    if not columns or columns["rank"].size == 0:
        return None
    order = np.lexsort((columns["started_ns"], _lives(columns["incarnation"]), columns["rank"]))
    rank, step = columns["rank"][order], columns["step"][order].astype(np.float64)
    host_ns = np.stack([columns[f"{phase.key}_ns"][order].astype(np.float64) for phase in Phase])
    phase_ns, on_device = _partition(columns, order, host_ns)
    is_step = ~np.isnan(step)
    redone = _redone(rank, step, is_step)
    kept = is_step & ~redone
    own_ns = np.nansum(phase_ns[list(IN_STEP[1:])], axis=0)
    incarnation = columns["incarnation"][order]
    warmup = kept & warmup_mask(rank, incarnation, step, own_ns, kept, policy)
    return StepTable(
        rank=rank,
        step=step,
        interval_ns=columns["interval_ns"][order].astype(np.float64),
        phase_ns=phase_ns,
        host_ns=host_ns,
        on_device=on_device,
        samples=columns["samples"][order].astype(np.float64),
        tokens=columns["tokens"][order].astype(np.float64),
        before=_before_first_step(rank, is_step),
        redone=redone,
        warmup=warmup,
        judged=kept & ~warmup,
        ranks=tuple(np.unique(rank).tolist()),
    )


def _lives(incarnation: np.ndarray) -> np.ndarray:
    """Incarnations by when their first row came: the wall clock may have been set back between two of one rank."""
    changes = np.flatnonzero(np.diff(incarnation, prepend=~incarnation[:1]))
    known, first = np.unique(incarnation[changes], return_index=True)
    lives: np.ndarray = changes[first][np.searchsorted(known, incarnation)]
    return lives


def _partition(columns: Columns, order: np.ndarray, host_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The partition, and which rows have it from the device."""
    unclaimed = columns[f"device_{Phase.UNATTRIBUTED.key}_ns"][order].astype(np.float64)
    on_device = ~np.isnan(unclaimed)
    if not on_device.any():
        return host_ns, on_device
    phase_ns = host_ns.copy()
    for phase in IN_STEP:
        device = columns[f"device_{phase.key}_ns"][order].astype(np.float64)
        phase_ns[phase] = np.where(on_device, device, host_ns[phase])
    return phase_ns, on_device


def _redone(rank: np.ndarray, step: np.ndarray, is_step: np.ndarray) -> np.ndarray:
    """Steps of which a later row of the same rank exists."""
    redone = np.zeros(rank.size, bool)
    places = np.flatnonzero(is_step)
    by_step = places[np.lexsort((places, step[places], rank[places]))]
    again = (step[by_step[1:]] == step[by_step[:-1]]) & (rank[by_step[1:]] == rank[by_step[:-1]])
    redone[by_step[:-1][again]] = True
    return redone


def _before_first_step(rank: np.ndarray, is_step: np.ndarray) -> np.ndarray:
    before = np.zeros(rank.size, bool)
    for one in np.unique(rank):
        mine = np.flatnonzero(rank == one)
        before[mine] = np.cumsum(is_step[mine]) == 0
    return before
