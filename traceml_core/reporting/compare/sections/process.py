"""What is compared of process: the memory of the training process and of its loader workers, and its CPU."""

from __future__ import annotations

from traceml_core.reporting.compare.metric_row import MetricRow, largest_of, mean_of
from traceml_core.reporting.compare.policy import COMPARE_POLICY

METRICS: tuple[MetricRow, ...] = (
    MetricRow(
        name="rss_bytes",
        label="process memory",
        unit="bytes",
        read=largest_of("process", "rss_bytes"),
        better="lower",
        spread=COMPARE_POLICY.memory_spread,
        decides=True,
    ),
    MetricRow(
        name="workers_rss_bytes",
        label="workers' memory",
        unit="bytes",
        read=largest_of("process", "workers_rss_bytes"),
        better="lower",
        spread=COMPARE_POLICY.memory_spread,
    ),
    MetricRow(name="cpu_percent", label="process CPU", unit="percent", read=mean_of("process", "cpu_percent")),
)
