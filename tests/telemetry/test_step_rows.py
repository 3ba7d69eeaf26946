"""Records become rows: slots fold into phases, what cannot be separated stays unattributed, memory rides along."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceml_core.core.identity import RankIdentity
from traceml_core.core.phases import STEP_PHASES, Phase
from traceml_core.core.rows import columns_of
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.phase_stack import PhaseStack
from traceml_core.instrumentation.step_memory import MemoryReading
from traceml_core.instrumentation.step_record import StepRecord
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_core.instrumentation.stretches import Stretches
from traceml_core.samplers.base import SamplerContext
from traceml_core.samplers.step_memory import StepMemoryRow
from traceml_core.samplers.step_time import OwnerTimeRow, StepSampler, StepTimeRow

PHASE_COLUMNS = [f"{phase.key}_ns" for phase in Phase]
DEVICE_COLUMNS = [f"device_{phase.key}_ns" for phase in (*STEP_PHASES, Phase.UNATTRIBUTED)]


def make_record(step: int | None = 1, spent_ns: list[int] | None = None, **fields: Any) -> StepRecord:
    spent_ns = [0] * len(Phase) if spent_ns is None else spent_ns
    values = {"unix_offset_ns": 1_000, "micro_batches": 1, "samples": None, "tokens": None}
    moments = list(itertools.accumulate(spent_ns))
    stretches = Stretches(0, moments[-1], [(range(len(moments)), moments)], [], PhaseStack())
    return StepRecord(step=step, stretches=stretches, **{**values, **fields})


def make_reading(**fields: Any) -> MemoryReading:
    values = {name: index for index, name in enumerate(MemoryReading.__struct_fields__)}
    return MemoryReading(**{**values, **fields})


class Rank:
    """A rank whose recorder's queue a test fills."""

    def __init__(self, *unmeasured: str):
        self.clock = PhaseClock()
        self.steps = StepRecorder(self.clock)
        self.sampler = StepSampler(
            SamplerContext(
                identity=RankIdentity(),
                clock=self.clock,
                steps=self.steps,
                watched_pid=os.getpid(),
                device=lambda: None,
                unmeasured=lambda: frozenset(unmeasured),
                aggregator_pid=lambda: None,
            )
        )

    def rows_of(self, *records: StepRecord) -> list:
        self.steps.queue.extend(records)
        return list(self.sampler.sample())

    def step_row(self, record: StepRecord) -> StepTimeRow:
        return next(row for row in self.rows_of(record) if isinstance(row, StepTimeRow))


def test_every_phase_has_a_column_and_every_step_phase_a_device_column():
    names = [column.name for column in columns_of(StepTimeRow)]
    assert [name for name in names if name in PHASE_COLUMNS] == PHASE_COLUMNS
    assert [name for name in names if name in DEVICE_COLUMNS] == DEVICE_COLUMNS


def test_each_phase_lands_in_its_own_column():
    row = Rank().step_row(make_record(7, list(range(100, 100 + len(Phase))), samples=8, tokens=64))
    assert [getattr(row, name) for name in PHASE_COLUMNS] == list(range(100, 100 + len(Phase)))
    assert (row.step, row.samples, row.tokens, row.micro_batches) == (7, 8, 64, 1)
    assert [getattr(row, name) for name in DEVICE_COLUMNS] == [None] * len(DEVICE_COLUMNS)


def test_device_time_lands_in_the_device_columns():
    row = Rank().step_row(make_record(device_ns=[1, 2, 3, 4, None, 6, 7]))
    assert [getattr(row, name) for name in DEVICE_COLUMNS] == [1, 2, 3, 4, None, 6, 7]


def test_slots_with_owners_fold_into_their_phase_and_give_a_row_an_owner():
    rank = Rank()
    early, late = rank.clock.slot(Phase.CALLBACKS, "Early"), rank.clock.slot(Phase.CALLBACKS, "Late")
    logger = rank.clock.slot(Phase.LOGGING, "CSVLogger")

    def spent(**owners: int) -> list[int]:
        slots = [0] * (len(Phase) + 3)
        for name, nanoseconds in owners.items():
            slots[{"early": early, "late": late, "logger": logger}[name]] = nanoseconds
        return slots

    rows = rank.rows_of(make_record(4, spent(early=5, late=20)), make_record(5, spent(early=7, logger=2)))
    steps = [row for row in rows if isinstance(row, StepTimeRow)]
    assert [(row.callbacks_ns, row.logging_ns) for row in steps] == [(25, 0), (7, 2)]
    assert [row for row in rows if isinstance(row, OwnerTimeRow)] == [
        OwnerTimeRow("callbacks", "Early", 4, 5, 2, 12, 7),
        OwnerTimeRow("callbacks", "Late", 4, 5, 1, 20, 20),
        OwnerTimeRow("logging", "CSVLogger", 4, 5, 1, 2, 2),
    ]


def test_a_slot_that_was_made_after_a_record_is_missing_in_that_record_only():
    rank = Rank()
    slot = rank.clock.slot(Phase.LOGGING, "CSVLogger")
    old, new = [0] * len(Phase), [0] * (len(Phase) + 1)
    new[slot] = 9
    rows = rank.rows_of(make_record(1, old), make_record(2, new))
    assert [row.logging_ns for row in rows if isinstance(row, StepTimeRow)] == [0, 9]
    assert [row.spent_ns for row in rows if isinstance(row, OwnerTimeRow)] == [9]


def test_owners_of_the_time_before_the_first_step_have_no_steps():
    rank = Rank()
    spent = [0] * len(Phase) + [3]
    rank.clock.slot(Phase.CALLBACKS, "Early")
    owner = rank.rows_of(make_record(None, spent))[-1]
    assert (owner.first_step, owner.last_step, owner.steps) == (None, None, 1)


def test_what_cannot_be_separated_is_null_and_its_time_unattributed_on_host_and_device():
    spent = list(range(1, len(Phase) + 1))
    row = Rank("grad_sync", "optimizer").step_row(make_record(1, spent, device_ns=[10, 20, 30, 40, 50, 60, 70]))
    assert (row.grad_sync_ns, row.optimizer_ns, row.unattributed_ns) == (None, None, 5 + 6 + 7)
    assert (row.device_grad_sync_ns, row.device_optimizer_ns, row.device_unattributed_ns) == (None, None, 180)


def test_an_unknown_name_among_the_unmeasured_costs_no_rows():
    row = Rank("no_such_phase", "unattributed").step_row(make_record(1, [1] * len(Phase)))
    assert (row.unattributed_ns, row.forward_ns) == (1, 1)


@given(
    st.lists(st.integers(0, 10**12), min_size=len(Phase), max_size=len(Phase)),
    st.frozensets(st.sampled_from([phase.key for phase in STEP_PHASES])),
)
def test_a_row_parts_its_interval_whatever_is_unmeasured(spent_ns, unmeasured):
    row = Rank(*unmeasured).step_row(make_record(1, spent_ns))
    assert sum(getattr(row, name) or 0 for name in PHASE_COLUMNS) == row.interval_ns


def test_a_record_with_a_memory_reading_gives_a_memory_row_too():
    rank = Rank()
    rows = rank.rows_of(make_record(1, memory=make_reading()), make_record(2))
    memory = [row for row in rows if isinstance(row, StepMemoryRow)]
    assert len(memory) == 1
    assert memory[0].step == 1
    for name in MemoryReading.__struct_fields__:
        assert getattr(memory[0], name) == getattr(make_reading(), name)


def test_each_record_is_told_once():
    rank = Rank()
    assert len(rank.rows_of(make_record(1))) == 1
    assert rank.rows_of() == []


@pytest.mark.parametrize("phase", Phase)
def test_the_whole_way_from_clock_to_row(phase):
    rank = Rank()
    rank.clock.leave(Phase.STARTUP)
    rank.steps.fetch()
    rank.clock.enter(phase)
    rank.clock.leave(phase)
    rank.steps.optimizer_step()
    rank.steps.finish()
    step = next(row for row in rank.sampler.sample() if isinstance(row, StepTimeRow) and row.step == 1)
    assert getattr(step, f"{phase.key}_ns") > 0
    assert sum(getattr(step, name) for name in PHASE_COLUMNS) == step.interval_ns
