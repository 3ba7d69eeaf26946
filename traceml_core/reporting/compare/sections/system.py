"""What is shown of system beside the rest: how busy host and GPU were. Neither good nor bad by itself."""

from __future__ import annotations

from traceml_core.reporting.compare.metric_row import MetricRow, mean_of

METRICS: tuple[MetricRow, ...] = (
    MetricRow(
        name="gpu_utilization_percent",
        label="GPU utilization",
        unit="percent",
        read=mean_of("system", "gpu_utilization_percent"),
    ),
    MetricRow(name="gpu_power_w", label="GPU power", unit="watt", read=mean_of("system", "gpu_power_w")),
    MetricRow(name="host_cpu_percent", label="host CPU", unit="percent", read=mean_of("system", "host_cpu_percent")),
)
