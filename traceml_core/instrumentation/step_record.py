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
    `UNATTRIBUTED`, null where its events were not resolved. What the training thread need not work out is a property.
    """

    step: int | None
    stretches: Stretches
    unix_offset_ns: int
    micro_batches: int
    samples: int | None
    tokens: int | None
    device_ns: list[int | None] | None = None
    memory: MemoryReading | None = None

    @property
    def started_ns(self) -> int:
        """Unix time, by the monotonic clock and its offset, which was read once."""
        return self.stretches.began_ns + self.unix_offset_ns

    @property
    def interval_ns(self) -> int:
        """How long it took."""
        return self.stretches.ended_ns - self.stretches.began_ns

    @property
    def spent_ns(self) -> list[int]:
        """The host's nanoseconds per slot of the clock, added up here and now."""
        return self.stretches.spent_ns
