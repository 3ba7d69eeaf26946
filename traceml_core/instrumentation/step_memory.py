"""Step memory: what the device's allocator holds after a step, and how much it held at most in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from traceml_core.core.phases import BACKWARD
from traceml_core.loggers.error_log import get_error_logger, report_failure

logger = get_error_logger("StepMemory")


class MemoryReading(msgspec.Struct, frozen=True, gc=False):
    """The allocator at the end of a step, and its peaks in the step; `allocation_retries` counts from its start."""

    device_index: int
    allocated_bytes: int
    reserved_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    total_bytes: int | None
    allocation_retries: int


class StepMemory:
    """Reads the allocator's figures between steps and where a backward begins, when it holds most.

    The allocator keeps one running peak, and that belongs to the user: it is never reset here. Where it grew in a step,
    it is the step's peak, exactly. Where it did not, the step's peak is the largest figure read in the step (at its
    begin, before each backward, at its end): a lower bound, as it is after the user has reset the running peak in the
    step. The largest peak of a run is exact unless the user resets.
    """

    def __init__(
        self, read_stats: Callable[[], Mapping[str, Any]], device: Callable[[], tuple[int, int | None]]
    ) -> None:
        """`read_stats` gives what `torch.cuda.memory_stats_as_nested_dict` does: empty before there is an allocator.

        `device` gives the device's index and its memory in bytes; it is asked once there is an allocator.
        """
        self._read_stats = read_stats
        self._find_device = device
        self._device: tuple[int, int | None] | None = None
        self._has_baseline = False
        self._running_peak_bytes = (0, 0)
        self._largest_bytes = (0, 0)

    def read(self) -> MemoryReading | None:
        """The step up to now; the next one begins. Null where the allocator cannot be read, or was not before."""
        stats = self._stats()
        if stats is None:
            self._has_baseline = False
            return None
        had_baseline, self._has_baseline = self._has_baseline, True
        allocated, reserved = stats["allocated_bytes"]["all"], stats["reserved_bytes"]["all"]
        before, largest = self._running_peak_bytes, self._largest_bytes
        self._running_peak_bytes = (allocated["peak"], reserved["peak"])
        self._largest_bytes = (allocated["current"], reserved["current"])
        if not had_baseline:
            return None
        if self._device is None:
            self._device = self._find_device()
        return MemoryReading(
            self._device[0],
            allocated["current"],
            reserved["current"],
            _peak(allocated, before[0], largest[0]),
            _peak(reserved, before[1], largest[1]),
            self._device[1],
            stats.get("num_alloc_retries", 0),
        )

    def boundary(self, slot: int) -> None:
        """The clock's phase changes: look where a backward begins."""
        if slot == BACKWARD and self._has_baseline:
            stats = self._stats()
            if stats is not None:
                allocated, reserved = self._largest_bytes
                self._largest_bytes = (
                    max(allocated, stats["allocated_bytes"]["all"]["current"]),
                    max(reserved, stats["reserved_bytes"]["all"]["current"]),
                )

    def _stats(self) -> Mapping[str, Any] | None:
        try:
            return self._read_stats() or None
        except RuntimeError as error:
            report_failure(logger, "reading the allocator", error)
            return None


def cuda_step_memory(device: int | None = None) -> StepMemory:
    """The step memory of a CUDA device; by default of the one that is current at the first step."""
    import torch

    cuda: Any = torch.cuda
    bound = device

    def read_stats() -> Mapping[str, Any]:
        nonlocal bound
        if not cuda.is_initialized():
            return {}
        if bound is None:
            bound = cuda.current_device()
        stats: Mapping[str, Any] = cuda.memory_stats_as_nested_dict(bound)
        return stats

    def find_device() -> tuple[int, int | None]:
        return bound or 0, int(cuda.get_device_properties(bound).total_memory)

    return StepMemory(read_stats, find_device)


def _peak(figures: Mapping[str, int], running_peak_before: int, largest: int) -> int:
    peak, seen = figures["peak"], max(largest, figures["current"])
    if peak > running_peak_before:
        return peak
    return max(seen, peak) if peak < running_peak_before else seen  # a smaller one: the user has reset it
