"""The system sampler: CPU and memory of the job's part of the host, once a node."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

import psutil

from traceml_core.core.rows import Row
from traceml_core.samplers.base import SamplerContext
from traceml_core.samplers.job_limits import job_limits, job_memory_used


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

    def __init__(self, context: SamplerContext) -> None:
        """Find the job's limits once."""
        self._is_first_of_node = context.identity.local_rank == 0
        self._limits = job_limits()
        self._machine_cpus = psutil.cpu_count() or 1
        self._has_baseline = False

    def sample(self) -> Sequence[Row]:
        """One row; its CPU share is null at the first look, which has nothing to compare with."""
        if not self._is_first_of_node:
            return []
        busy = psutil.cpu_percent(interval=None)
        share = min(busy * self._machine_cpus / self._limits.cpus, 100.0) if self._has_baseline else None
        self._has_baseline = True
        return [
            SystemRow(
                time.time_ns(), share, job_memory_used(self._limits), self._limits.memory_bytes, self._limits.cpus
            )
        ]
