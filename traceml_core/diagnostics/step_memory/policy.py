"""Every threshold of the step_memory diagnosis, and the policies by name."""

from __future__ import annotations

import msgspec

from traceml_core.diagnostics.memory_creep import CreepPolicy
from traceml_core.diagnostics.thresholds import Threshold


class StepMemoryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Shares are of the device's memory. `settle_steps` at the start are no basis for retries and creep.

    The device's allocator tells exactly what is in use, after every step; so creep is judged sooner than the host's.
    """

    creep: CreepPolicy = CreepPolicy(
        smallest_rise_bytes=32 * 2**20,
        fast_rise_bytes=32 * 2**20,
        smallest_rise_share=0.02,
        smallest_steps=100,
        bulge=0.17,
        sag=0.17,
        significance=8.0,
    )
    pressure_share: Threshold = Threshold(0.90)
    imbalance_share: Threshold = Threshold(0.25)
    imbalance_of_total: float = 0.10
    settle_steps: int = 5
    retries: Threshold = Threshold(1)


SUMMARY_STEP_MEMORY_POLICY = StepMemoryPolicy()
LIVE_STEP_MEMORY_POLICY = SUMMARY_STEP_MEMORY_POLICY
