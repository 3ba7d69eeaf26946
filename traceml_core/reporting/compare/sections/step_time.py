"""What is compared of step_time, from the series after warm-up: the undisturbed step, its parts, the mean step.

A step's own work is much the same each time, and what makes it longer now and then is mostly the machine: of it the
faster half of the steps counts. Waits come in bursts: of them the calmer half of the stretches counts. What lies around
steps is seldom, and counts by its mean. In the mean step all of it does.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from traceml_core.core.phases import Phase
from traceml_core.reporting.compare.metric_row import MetricRow, Reading, one_number
from traceml_core.reporting.compare.policy import COMPARE_POLICY
from traceml_core.reporting.summary import FinalSummary
from traceml_core.statistics.calm_half import in_calm_half, pseudo_values, smoothed

UNDISTURBED_STEP = "undisturbed_step_ms"
MEAN_STEP = "step_interval_ms"
_OWN_WORK = (Phase.H2D, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER, Phase.UNATTRIBUTED)
_WAITS = (Phase.INPUT_WAIT, Phase.GRAD_SYNC)
_PHASES = tuple(phase for phase in Phase if phase not in (Phase.STARTUP, Phase.TEARDOWN))


class _Steps(msgspec.Struct, frozen=True):
    """The series as columns: steps a block, the slowest rank's interval, and phases; null where not measured."""

    counts: np.ndarray
    interval_ms: np.ndarray
    phases_ms: dict[Phase, np.ndarray | None]

    @property
    def own_ms(self) -> np.ndarray:
        """The interval without waits and without what lies around steps."""
        others = [self.phases_ms[phase] for phase in _PHASES if phase not in _OWN_WORK]
        own: np.ndarray = self.interval_ms - sum(column for column in others if column is not None)
        return own

    def undisturbed(self, own_part_ms: np.ndarray) -> np.ndarray:
        """A part of the own work in the faster half of the steps, the same steps for all parts, so that they add up."""
        return pseudo_values(own_part_ms, in_calm_half(self.own_ms), self.counts)

    def part(self, phase: Phase) -> np.ndarray | None:
        """What a phase takes of the undisturbed step; null where it was not measured."""
        column = self.phases_ms[phase]
        if column is None:
            return None
        if phase in _OWN_WORK:
            return self.undisturbed(column)
        if phase in _WAITS:
            stretches = smoothed(column)
            return pseudo_values(stretches, in_calm_half(stretches), self.counts)
        return column


def _steps_of(summary: FinalSummary) -> _Steps | None:
    """The series without warm-up; null where it is too short."""
    section = summary.sections.get("step_time")
    blocks = [block for block in (section.series or () if section else ()) if not block.warmup and block.count > 0]
    if len(blocks) < COMPARE_POLICY.minimum_blocks:
        return None
    phases_ms: dict[Phase, np.ndarray | None] = {}
    for phase in _PHASES:
        column = [block.phases_ms.get(phase.key) for block in blocks]
        phases_ms[phase] = None if None in column else np.array(column, dtype=np.float64)
    return _Steps(
        np.array([block.count for block in blocks], dtype=np.float64),
        np.array([block.step_interval_ms for block in blocks], dtype=np.float64),
        phases_ms,
    )


def _undisturbed_step(steps: _Steps) -> np.ndarray:
    others = [steps.part(phase) for phase in _PHASES if phase not in _OWN_WORK]
    whole: np.ndarray = steps.undisturbed(steps.own_ms) + sum(column for column in others if column is not None)
    return whole


def _phase_part(phase: Phase) -> Callable[[_Steps], np.ndarray | None]:
    return lambda steps: steps.part(phase)


def _slowest_rank_part(steps: _Steps) -> np.ndarray:
    """The slowest rank's interval beyond the ranks' mean."""
    known = [column for column in steps.phases_ms.values() if column is not None]
    return steps.undisturbed(steps.interval_ms - sum(known))


def _reader(
    column_of: Callable[[_Steps], np.ndarray | None], several_ranks_only: bool = False
) -> Callable[[FinalSummary], Reading | None]:
    def read(summary: FinalSummary) -> Reading | None:
        if several_ranks_only and summary.run.world_size == 1:
            return None
        steps = _steps_of(summary)
        column = None if steps is None else column_of(steps)
        return None if steps is None or column is None else Reading(column, steps.counts)

    return read


def _part(name: str, label: str, read: Callable[[FinalSummary], Reading | None]) -> MetricRow:
    return MetricRow(
        name=name,
        label=label,
        unit="ms",
        read=read,
        better="lower",
        spread=COMPARE_POLICY.undisturbed_step_spread,
        computing_spread=COMPARE_POLICY.computing_spread,
        part_of=UNDISTURBED_STEP,
    )


METRICS: tuple[MetricRow, ...] = (
    MetricRow(
        name=UNDISTURBED_STEP,
        label="undisturbed step",
        unit="ms",
        read=_reader(_undisturbed_step),
        better="lower",
        spread=COMPARE_POLICY.undisturbed_step_spread,
        computing_spread=COMPARE_POLICY.computing_spread,
        decides=True,
    ),
    *(_part(f"{phase.key}_ms", phase.label, _reader(_phase_part(phase))) for phase in _PHASES),
    _part("slowest_rank_ms", "slowest rank's lag", _reader(_slowest_rank_part, several_ranks_only=True)),
    MetricRow(
        name=MEAN_STEP,
        label="mean step",
        unit="ms",
        read=_reader(lambda steps: steps.interval_ms),
        better="lower",
        spread=COMPARE_POLICY.mean_step_spread,
        computing_spread=COMPARE_POLICY.computing_spread,
        decides=True,
    ),
    MetricRow(
        name="samples_per_s", label="samples a second", unit="per_s", read=lambda one: one_number(one.run.samples_per_s)
    ),
    MetricRow(
        name="tokens_per_s", label="tokens a second", unit="per_s", read=lambda one: one_number(one.run.tokens_per_s)
    ),
)
