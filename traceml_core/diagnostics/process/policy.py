"""Every threshold of the process diagnosis, and the policies by name."""

from __future__ import annotations

import msgspec

from traceml_core.diagnostics.memory_creep import CreepPolicy
from traceml_core.diagnostics.thresholds import Threshold


class ProcessPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Shares are of what the job may use: its memory limit, its CPUs, the GPU's memory."""

    creep: CreepPolicy = CreepPolicy()
    memory_share: Threshold = Threshold(0.85, 0.95)
    cpu_share: Threshold = Threshold(0.95)
    smallest_samples: int = 5
    """Fewer looks at the CPU than this are no basis for a judgement."""

    overhang_of_reserved: float = 0.4
    overhang_of_total: Threshold = Threshold(0.3)


SUMMARY_PROCESS_POLICY = ProcessPolicy()
LIVE_PROCESS_POLICY = msgspec.structs.replace(SUMMARY_PROCESS_POLICY, smallest_samples=10)
