"""What is compared of step_memory: the most that a step took of the GPU's memory."""

from __future__ import annotations

from traceml_core.reporting.compare.metric_row import MetricRow, largest_of
from traceml_core.reporting.compare.policy import COMPARE_POLICY

METRICS: tuple[MetricRow, ...] = (
    MetricRow(
        name="peak_allocated_bytes",
        label="GPU memory, allocated",
        unit="bytes",
        read=largest_of("step_memory", "peak_allocated_bytes"),
        better="lower",
        spread=COMPARE_POLICY.memory_spread,
        decides=True,
    ),
    MetricRow(
        name="peak_reserved_bytes",
        label="GPU memory, reserved",
        unit="bytes",
        read=largest_of("step_memory", "peak_reserved_bytes"),
        better="lower",
        spread=COMPARE_POLICY.memory_spread,
    ),
)
