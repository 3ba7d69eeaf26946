"""Step time: one row a step from the recorder's queue, and what each owner (a callback) spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from traceml_core.core.phases import STEP_PHASES, Phase
from traceml_core.core.rows import Row
from traceml_core.instrumentation.step_record import StepRecord
from traceml_core.instrumentation.stretches import PHASES
from traceml_core.samplers.base import SamplerContext
from traceml_core.samplers.step_memory import memory_row


class StepTimeRow(Row, frozen=True):
    """One step, or (`step` null) the time before the first or after the last one; nanoseconds per phase.

    The host columns partition `interval_ns`. A phase that cannot be separated is null, and its time is unattributed.
    The device columns are null where the device's events were not resolved, and on a CPU.
    """

    table: ClassVar[str] = "step_time"

    step: int | None
    started_ns: int
    interval_ns: int
    input_wait_ns: int | None
    h2d_ns: int | None
    forward_ns: int | None
    backward_ns: int | None
    grad_sync_ns: int | None
    optimizer_ns: int | None
    unattributed_ns: int | None
    startup_ns: int | None
    loader_start_ns: int | None
    validation_ns: int | None
    checkpoint_ns: int | None
    logging_ns: int | None
    callbacks_ns: int | None
    teardown_ns: int | None
    device_input_wait_ns: int | None
    device_h2d_ns: int | None
    device_forward_ns: int | None
    device_backward_ns: int | None
    device_grad_sync_ns: int | None
    device_optimizer_ns: int | None
    device_unattributed_ns: int | None
    micro_batches: int
    samples: int | None
    tokens: int | None


class OwnerTimeRow(Row, frozen=True):
    """What one owner of around-step time (a callback, by name) spent in some consecutive steps."""

    table: ClassVar[str] = "owner_time"

    phase: str
    owner: str
    first_step: int | None
    last_step: int | None
    steps: int
    spent_ns: int
    max_ns: int


class StepSampler:
    """Empties the recorder's queue."""

    def __init__(self, context: SamplerContext) -> None:
        """Sample the recorder of this rank."""
        self._context = context

    def sample(self) -> Sequence[Row]:
        """A row a step, a row an owner, and on an accelerator a row a step of its memory."""
        queue = self._context.steps.queue
        records = [queue.popleft() for _ in range(len(queue))]
        if not records:
            return []
        slots = self._context.clock.slots
        phases = [phase for phase, _ in slots]
        keys = self._context.unmeasured()
        unmeasured = [phase for phase in Phase if phase.key in keys and phase is not Phase.UNATTRIBUTED]
        spent = [record.spent_ns for record in records]
        rows: list[Row] = [
            step_time_row(record, spent_ns, phases, unmeasured) for record, spent_ns in zip(records, spent, strict=True)
        ]
        rows += _owner_rows([record.step for record in records], spent, slots)
        rows += [memory_row(record) for record in records if record.memory is not None]
        return rows


def step_time_row(
    record: StepRecord, spent_ns: Sequence[int], phases: Sequence[Phase], unmeasured: Sequence[Phase]
) -> StepTimeRow:
    """The row of one record: slots fold into their phases, what cannot be measured into `unattributed`."""
    spent: list[int | None] = list(spent_ns[:PHASES])
    for slot in range(PHASES, len(spent_ns)):
        spent[phases[slot]] = (spent[phases[slot]] or 0) + spent_ns[slot]
    device: list[int | None] = [None] * (len(STEP_PHASES) + 1) if record.device_ns is None else list(record.device_ns)
    for phase in unmeasured:
        spent[Phase.UNATTRIBUTED] = (spent[Phase.UNATTRIBUTED] or 0) + (spent[phase] or 0)
        spent[phase] = None
        if phase in STEP_PHASES and device[phase] is not None:
            device[Phase.UNATTRIBUTED] = (device[Phase.UNATTRIBUTED] or 0) + (device[phase] or 0)
            device[phase] = None
    head = (record.step, record.started_ns, record.interval_ns)
    values: tuple[Any, ...] = (*head, *spent, *device, record.micro_batches, record.samples, record.tokens)
    return StepTimeRow(*values)


def _owner_rows(
    steps: Sequence[int | None], spent_ns: Sequence[Sequence[int]], slots: Sequence[tuple[Phase, str | None]]
) -> list[OwnerTimeRow]:
    rows = []
    numbered = [step for step in steps if step is not None]
    first, last = (numbered[0], numbered[-1]) if numbered else (None, None)
    for slot in range(PHASES, len(slots)):
        spent = [one[slot] for one in spent_ns if len(one) > slot and one[slot]]
        if spent:
            phase, owner = slots[slot]
            rows.append(OwnerTimeRow(phase.key, owner or "", first, last, len(spent), sum(spent), max(spent)))
    return rows
