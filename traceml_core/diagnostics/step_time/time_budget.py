"""The time budget: where a run's wall time went, start-up and warm-up included, mean over ranks."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from traceml_core.core.phases import Phase
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.diagnostics.step_time.step_table import StepTable

ClockName = Literal["host", "device", "mixed"]


class BudgetPart(msgspec.Struct, frozen=True, kw_only=True):
    """One phase's part of the wall time; null where it was not measured: its time is then unattributed."""

    phase: str
    seconds: float | None
    share: float | None


class TimeBudget(msgspec.Struct, frozen=True, kw_only=True):
    """Where the wall time went. `coverage_share` is what the rows account for; `parts` has every phase, in order.

    `clock` says what the in-step parts were measured with: the host's clock, the device's, or some of both.
    """

    wall_s: float
    clock: ClockName
    coverage_share: float
    unattributed_share: float
    parts: tuple[BudgetPart, ...]


def time_budget(table: StepTable | None, run: RunShape) -> TimeBudget:
    """Sum every row of every rank: done twice, warm-up and around steps alike."""
    wall_s = run.wall_s
    if table is None or wall_s <= 0:
        nothing = tuple(BudgetPart(phase=phase.key, seconds=None, share=None) for phase in Phase)
        return TimeBudget(wall_s=wall_s, clock="host", coverage_share=0.0, unattributed_share=0.0, parts=nothing)
    ranks = max(len(run.ranks), 1)
    seconds = np.nansum(table.phase_ns, axis=1) / 1e9 / ranks
    # Steps say what is measured, not the start-up record: what a loop keeps from view shows only once it steps.
    asked = table.around if table.around.all() else ~table.around
    measured = {phase: bool(seconds[phase]) or table.is_measured(phase, asked) for phase in Phase}
    parts = tuple(
        BudgetPart(
            phase=phase.key,
            seconds=float(seconds[phase]) if measured[phase] else None,
            share=float(seconds[phase]) / wall_s if measured[phase] else None,
        )
        for phase in Phase
    )
    return TimeBudget(
        wall_s=wall_s,
        clock=clock_name(table),
        coverage_share=min(float(table.interval_ns.sum()) / 1e9 / ranks / wall_s, 1.0),
        unattributed_share=float(seconds[Phase.UNATTRIBUTED]) / wall_s,
        parts=parts,
    )


def clock_name(table: StepTable) -> ClockName:
    """What measured the in-step parts of the steps."""
    on_device = float(table.table.sums["on_device"][~table.around].sum())
    if not on_device:
        return "host"
    return "device" if on_device == table.rows[~table.around].sum() else "mixed"
