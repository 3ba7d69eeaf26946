"""The process samplers: memory and CPU of this rank's process, and of its loader workers apart from it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import psutil

from traceml_core.core.rows import Row
from traceml_core.samplers.base import SamplerContext
from traceml_core.samplers.nvml import process_memory_bytes

CLOSE_LOOK_S = 60.0
CLOSE_LOOK_INTERVAL_S = 0.1
CHILDREN_INTERVAL_S = 1.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessRow(Row, frozen=True):
    """This rank's process. CPU: 100 is one core. `workers` are its children, TraceML's own left out."""

    table: ClassVar[str] = "process"

    at_ns: int
    step: int
    cpu_percent: float | None
    threads: int | None
    workers: int
    workers_cpu_percent: float | None
    gpu_memory_bytes: int | None


class ProcessMemoryRow(Row, frozen=True):
    """Resident memory of this rank's process and of its workers; `step` is the number of steps done by then."""

    table: ClassVar[str] = "process_memory"

    at_ns: int
    step: int
    rss_bytes: int
    workers_rss_bytes: int | None
    workers: int


class ProcessSampler:
    """Looks at CPU, threads and the GPU memory of the process."""

    def __init__(self, context: SamplerContext) -> None:
        """Watch the rank's process."""
        self._context = context
        self._process = psutil.Process(context.watched_pid)
        self._process.cpu_percent()
        self._workers: dict[int, psutil.Process] = {}

    def sample(self) -> Sequence[Row]:
        """One row."""
        with self._process.oneshot():
            cpu, threads = self._process.cpu_percent(), self._process.num_threads()
        worker_cpu = self._workers_cpu()
        uses_gpu = self._context.device() == "cuda"
        return [
            ProcessRow(
                time.time_ns(),
                self._context.steps.steps_done,
                cpu,
                threads,
                len(self._workers),
                worker_cpu,
                process_memory_bytes(self._process.pid) if uses_gpu else None,
            )
        ]

    def _workers_cpu(self) -> float | None:
        found = {pid: self._workers.get(pid) for pid in child_pids(self._process, self._context.aggregator_pid())}
        self._workers = {}
        total: float | None = None
        for pid, known in found.items():
            try:
                worker = known or psutil.Process(pid)
                total = (total or 0.0) + worker.cpu_percent()
                self._workers[pid] = worker
            except psutil.NoSuchProcess:
                continue  # a worker that ended between two looks is no worker any more
        return total


class ProcessMemorySampler:
    """Looks at resident memory: ten times a second in the first minute, then as often as the other samplers."""

    def __init__(self, context: SamplerContext) -> None:
        """Watch the rank's process."""
        self._context = context
        self._process = psutil.Process(context.watched_pid)
        self._began_s = time.monotonic()
        self._due_s = 0.0
        self._children_due_s = 0.0
        self._children: list[int] = []

    def sample(self) -> Sequence[Row]:
        """One row, when it is time."""
        now = time.monotonic()
        if now < self._due_s:
            return []
        close = now - self._began_s < CLOSE_LOOK_S
        self._due_s = now + (CLOSE_LOOK_INTERVAL_S / 2 if close else CHILDREN_INTERVAL_S)
        if now >= self._children_due_s:
            self._children = child_pids(self._process, self._context.aggregator_pid())
            self._children_due_s = now + CHILDREN_INTERVAL_S
        rss = resident_bytes(self._process.pid)
        if rss is None:
            return []
        workers = [size for size in map(resident_bytes, self._children) if size is not None]
        step = self._context.steps.steps_done
        return [ProcessMemoryRow(time.time_ns(), step, rss, sum(workers) if workers else None, len(workers))]


def child_pids(process: psutil.Process, left_out: int | None) -> list[int]:
    """The process's children, grandchildren included, without `left_out` (the aggregator) and what it started."""
    skipped = {left_out}
    pids = []
    for child in process.children(recursive=True):
        if child.pid in skipped or child.ppid() in skipped:
            skipped.add(child.pid)
        else:
            pids.append(child.pid)
    return pids


def resident_bytes(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Resident memory of a process; null where it has ended."""
    try:
        return int((proc / str(pid) / "statm").read_bytes().split()[1]) * PAGE_BYTES
    except (FileNotFoundError, ProcessLookupError, IndexError):
        pass
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None
