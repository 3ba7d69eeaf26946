"""The time budget: where the wall time of a run went, as the mean over its ranks."""

from __future__ import annotations

import numpy as np

from traceml_core.core.phases import STEP_PHASES, Phase
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.history.reader import Columns
from traceml_core.reporting.summary import BudgetPart, TimeBudget

IN_STEP = (*STEP_PHASES, Phase.UNATTRIBUTED)


def time_budget(steps: Columns, run: RunShape) -> TimeBudget:
    """The budget of the rows of `step_time`, against the ranks' mean wall time.

    Rows whose device events were resolved count by the device's clock inside the step, others by the host's; `clock`
    is 'device' where most of the time counts so. A phase that no row measured has null seconds.
    """
    ranks = len(run.ranks) or 1
    wall_s = run.wall_s
    if not steps:
        return TimeBudget(wall_s=wall_s, clock="host", coverage_share=0.0, unattributed_share=0.0, parts=[])
    resolved = ~np.isnan(steps["device_unattributed_ns"])
    total_s = {phase: _seconds(steps, phase, resolved, ranks) for phase in Phase}
    recorded_s = sum(value for value in total_s.values() if value is not None)
    share_of = 1 / wall_s if wall_s > 0 else 0.0
    return TimeBudget(
        wall_s=wall_s,
        clock="device" if resolved.mean() > 0.5 else "host",
        coverage_share=min(1.0, recorded_s * share_of),
        unattributed_share=(total_s[Phase.UNATTRIBUTED] or 0.0) * share_of,
        parts=[
            BudgetPart(phase=phase.key, seconds=value, share=None if value is None else value * share_of)
            for phase, value in total_s.items()
        ],
    )


def _seconds(steps: Columns, phase: Phase, resolved: np.ndarray, ranks: int) -> float | None:
    """Seconds of one phase, mean over ranks; None where no row measured it."""
    spent_ns = steps[f"{phase.key}_ns"]
    if phase in IN_STEP:
        spent_ns = np.where(resolved, steps[f"device_{phase.key}_ns"], spent_ns)
    measured = ~np.isnan(spent_ns)
    return float(spent_ns[measured].sum()) / ranks / 1e9 if measured.any() else None
