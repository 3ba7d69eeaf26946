"""The process samplers: memory and CPU of this rank's process, and of its loader workers apart from it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import ClassVar

from traceml_core.core.rows import Row
from traceml_core.samplers.base import SamplerContext
from traceml_core.samplers.nvml import Gpu, gpus_of_this_process, library, process_memory_bytes
from traceml_core.samplers.process_tree import ResidentMemory, activity, descendants, resident_memory

CLOSE_LOOK_S = 60.0
CHILDREN_INTERVAL_S = 1.0
# So many steps between two ticks are fast: a few hundred of them are over after a handful of looks.
FAST_STEPS = 20
GLANCES = 4
GLANCES_S = 10.0
# CPU time is counted in ticks of 10 ms: over a shorter stretch it says nothing.
SHORTEST_STRETCH_S = 0.05


class ProcessRow(Row, frozen=True):
    """This rank's process. CPU: 100 is one core. `workers` are its children, TraceML's own and other ranks left out."""

    table: ClassVar[str] = "process"

    at_ns: int
    step: int
    cpu_percent: float | None
    threads: int | None
    workers: int
    workers_cpu_percent: float | None
    gpu_memory_bytes: int | None


class ProcessMemoryRow(Row, frozen=True):
    """Resident memory of this rank's process and of its workers; `step` is the number of steps done by then.

    Of the resident bytes, `mapped_file_bytes` mirror files: the system takes those back when it needs the memory.
    """

    table: ClassVar[str] = "process_memory"

    at_ns: int
    step: int
    rss_bytes: int
    workers_rss_bytes: int | None
    workers: int
    mapped_file_bytes: int | None = None
    workers_mapped_file_bytes: int | None = None


class ProcessSampler:
    """Looks at CPU, threads and the GPU memory of the process."""

    def __init__(self, context: SamplerContext, now_s: Callable[[], float] = time.monotonic) -> None:
        """Watch the rank's process."""
        self._context = context
        self._now_s = now_s
        self._pid = context.watched_pid
        self._gpus: list[Gpu] | None = None
        self._looked_s = now_s()
        self._used_s = self._look()[0]

    def sample(self) -> Sequence[Row]:
        """One row; none once the process has ended. Its CPU is that since the last look; null right after one."""
        passed_s = self._now_s() - self._looked_s
        used_s, threads = self._look()
        if threads is None:
            return []
        cpu = workers_cpu = None
        if passed_s >= SHORTEST_STRETCH_S:
            cpu, workers_cpu = _cpu_percents(self._pid, self._used_s, used_s, passed_s)
            self._looked_s += passed_s
            self._used_s = used_s
        step = self._context.steps.steps_done
        return [
            ProcessRow(self._context.unix_ns(), step, cpu, threads, len(used_s) - 1, workers_cpu, self._gpu_memory())
        ]

    def _look(self) -> tuple[dict[int, float], int | None]:
        """CPU seconds by process, the rank's own and its workers', and the own one's threads: null where it ended."""
        own = activity(self._pid)
        if own is None:
            return {}, None
        used_s = {self._pid: own.cpu_s}
        for pid in _workers(self._context):
            worker = activity(pid)
            if worker is not None:
                used_s[pid] = worker.cpu_s
        return used_s, own.threads

    def _gpu_memory(self) -> int | None:
        if self._context.device() != "cuda":
            return None
        nvml = library()
        if nvml is None:
            return None
        if self._gpus is None:
            self._gpus = gpus_of_this_process(nvml)
        return process_memory_bytes(nvml, self._gpus, self._pid)


class ProcessMemorySampler:
    """Looks at resident memory: at every tick in the first minute, then as often as the other samplers.

    Where steps are fast it glances at it between ticks as well, in the first seconds.
    """

    def __init__(self, context: SamplerContext, now_s: Callable[[], float] = time.monotonic) -> None:
        """Watch the rank's process."""
        self._context = context
        self._now_s = now_s
        self._pid = context.watched_pid
        self._began_s = now_s()
        self._due_s = self._children_due_s = self._began_s
        self._children: list[int] = []
        self._steps_done = 0
        self._first_step_s: float | None = None
        self._glanced: list[Row] = []
        self.glances = 0

    def sample(self) -> Sequence[Row]:
        """What was glanced at, and one row, when it is time; none once the process has ended."""
        now_s = self._now_s()
        if now_s < self._due_s:
            return []
        if now_s - self._began_s >= CLOSE_LOOK_S:
            self._due_s = now_s + self._context.sample_interval_s
        if now_s >= self._children_due_s:
            self._children = _workers(self._context)
            self._children_due_s = now_s + CHILDREN_INTERVAL_S
        self.glances = self._glances_wanted(now_s)
        self.glance()
        rows, self._glanced = self._glanced, []
        return rows

    def glance(self) -> None:
        """Keep a row for the next `sample`; none once the process has ended."""
        own = resident_memory(self._pid)
        if own is None:
            return
        workers = [held for held in map(resident_memory, self._children) if held is not None]
        self._glanced.append(
            ProcessMemoryRow(
                self._context.unix_ns(),
                self._context.steps.steps_done,
                own.rss_bytes,
                sum(held.rss_bytes for held in workers) if workers else None,
                len(workers),
                own.mapped_file_bytes,
                _mapped_bytes(workers),
            )
        )

    def _glances_wanted(self, now_s: float) -> int:
        """How often to glance before the next tick."""
        done = self._context.steps.steps_done
        passed, self._steps_done = done - self._steps_done, done
        if self._first_step_s is None and done:
            self._first_step_s = now_s
        fresh = self._first_step_s is not None and now_s - self._first_step_s < GLANCES_S
        return GLANCES if fresh and passed >= FAST_STEPS else 0


def _workers(context: SamplerContext) -> list[int]:
    local_rank = context.identity.local_rank if context.watched_pid == os.getpid() else None
    return descendants(context.watched_pid, context.aggregator_pid(), local_rank=local_rank)


def _cpu_percents(
    own_pid: int, before_s: dict[int, float], now_s: dict[int, float], passed_s: float
) -> tuple[float | None, float | None]:
    """Of the process and of its workers. A worker that was not there at the last look has used all its time since."""
    percents = {pid: 100 * (used_s - before_s.get(pid, 0.0)) / passed_s for pid, used_s in now_s.items()}
    own = percents.pop(own_pid)
    # Below zero: the number belongs to another process by now.
    workers = sum(max(percent, 0.0) for percent in percents.values()) if percents else None
    return (own if own_pid in before_s else None), workers


def _mapped_bytes(workers: Sequence[ResidentMemory]) -> int | None:
    parts = [held.mapped_file_bytes for held in workers if held.mapped_file_bytes is not None]
    return sum(parts) if parts and len(parts) == len(workers) else None
