"""Step memory: what the device's allocator held in each step. Its rows come from the same records as step time."""

from __future__ import annotations

from typing import ClassVar

from traceml_core.core.rows import Row
from traceml_core.instrumentation.step_record import StepRecord


class StepMemoryRow(Row, frozen=True):
    """The allocator's state at the end of one step, and its peaks in it; `allocation_retries` counts from the start."""

    table: ClassVar[str] = "step_memory"

    step: int
    device_index: int
    allocated_bytes: int
    reserved_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    total_bytes: int | None
    allocation_retries: int


def memory_row(record: StepRecord) -> StepMemoryRow:
    """The row of a record that carries a memory reading."""
    reading = record.memory
    assert reading is not None
    assert record.step is not None
    return StepMemoryRow(
        record.step,
        reading.device_index,
        reading.allocated_bytes,
        reading.reserved_bytes,
        reading.peak_allocated_bytes,
        reading.peak_reserved_bytes,
        reading.total_bytes,
        reading.allocation_retries,
    )
