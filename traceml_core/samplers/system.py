"""The system sampler: CPU and memory of the job's part of the host, once a node."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ClassVar

import psutil

from traceml_core.core.rows import Row
from traceml_core.samplers.base import SamplerContext
from traceml_core.samplers.job_limits import JobLimits, job_limits, job_memory_used, quota_used_s

# CPU time is counted in ticks of 10 ms: over a shorter stretch it says nothing.
SHORTEST_STRETCH_S = 0.05


class SystemRow(Row, frozen=True):
    """The host as the job sees it. `host_cpu_percent`: 100 is all of the job's CPUs, and never more."""

    table: ClassVar[str] = "system"

    at_ns: int
    host_cpu_percent: float | None
    host_memory_bytes: int | None
    memory_limit_bytes: int | None
    cpus: float | None


class SystemSampler:
    """Looks at the host, on one rank a node."""

    def __init__(
        self,
        context: SamplerContext,
        find_limits: Callable[[], JobLimits] = job_limits,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Find the job's limits once."""
        self._limits = find_limits() if context.identity.local_rank == 0 else None
        self._now_s = now_s
        self._unix_ns = context.unix_ns
        self._looked_s = now_s()
        self._busy_s = None if self._limits is None else busy_cpu_s(self._limits)

    def sample(self) -> Sequence[Row]:
        """One row. Its CPU share is that since the last look; null where too little time has passed."""
        limits = self._limits
        if limits is None:
            return []
        share = self._cpu_share(limits)
        percent = None if share is None else 100 * share
        return [SystemRow(self._unix_ns(), percent, job_memory_used(limits), limits.memory_bytes, limits.cpus)]

    def _cpu_share(self, limits: JobLimits) -> float | None:
        passed_s = self._now_s() - self._looked_s
        if passed_s < SHORTEST_STRETCH_S:
            return None
        self._looked_s += passed_s
        before_s, self._busy_s = self._busy_s, busy_cpu_s(limits)
        if before_s is None or self._busy_s is None:
            return None
        return min(max(self._busy_s - before_s, 0.0) / (passed_s * limits.cpus), 1.0)


def busy_cpu_s(limits: JobLimits) -> float | None:
    """Seconds for which the job's CPUs have been busy: by the job's cgroup under a quota, else by anybody."""
    if limits.quota is not None:
        return quota_used_s(limits.quota)
    times = psutil.cpu_times(percpu=True)
    if max(limits.cpu_numbers) >= len(times):  # some are offline, and the list does not say which
        return len(limits.cpu_numbers) / len(times) * sum(map(_busy_s, times))
    return sum(_busy_s(times[number]) for number in limits.cpu_numbers)


def _busy_s(times: tuple[float, ...]) -> float:
    # `guest` and `guest_nice` are part of `user` and `nice`.
    idle = ("idle", "iowait", "guest", "guest_nice")
    return float(sum(times) - sum(getattr(times, name, 0.0) for name in idle))
