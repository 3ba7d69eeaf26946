"""The step record: what one step was, as the training thread hands it over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from traceml_core.instrumentation.stretches import Stretches

if TYPE_CHECKING:
    from traceml_core.instrumentation.step_memory import MemoryReading


class StepRecord(msgspec.Struct, frozen=True, gc=False):
    """One step, or (`step` null) the time before the first and after the last one.

    `stretches` say who owned the host's time; `device_ns` holds the device's nanoseconds per phase up to
    `UNATTRIBUTED`, null where its events were not resolved. `started_ns` is Unix time, derived once from the monotonic
    clock.
    """

    step: int | None
    started_ns: int
    interval_ns: int
    stretches: Stretches
    micro_batches: int
    samples: int | None
    tokens: int | None
    device_ns: list[int | None] | None = None
    memory: MemoryReading | None = None

    @property
    def spent_ns(self) -> list[int]:
        """The host's nanoseconds per slot of the clock, added up here and now: not for the training thread."""
        return self.stretches.spent_ns
