"""Every threshold of the system diagnosis, and the policies by name."""

from __future__ import annotations

import msgspec

from traceml_core.diagnostics.thresholds import Threshold


class SystemPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Judged are means over the looks during training, of which there must be `smallest_samples`."""

    smallest_samples: int = 5
    host_memory_share: Threshold = Threshold(0.92, 0.98)
    host_cpu_percent: Threshold = Threshold(95.0)
    gpu_memory_share: Threshold = Threshold(0.97)
    gpu_temperature_to_limit_c: float = 4.0
    gpu_temperature_c: Threshold = Threshold(87.0)
    """Where the driver does not tell its limit."""

    gpu_power_share: Threshold = Threshold(0.97)
    throttled_share: Threshold = Threshold(0.10)
    gpu_utilization_percent: float = 30.0


SUMMARY_SYSTEM_POLICY = SystemPolicy()
LIVE_SYSTEM_POLICY = msgspec.structs.replace(SUMMARY_SYSTEM_POLICY, smallest_samples=10)
