"""What the job may use: its cgroup's memory and CPU quota, its CPU affinity, else the machine's."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import psutil

NO_LIMIT = 1 << 60  # cgroup v1 spells 'no limit' as a number near 2**63


class JobLimits(msgspec.Struct, frozen=True):
    """The job's CPUs (a quota may be a fraction) and memory, and the files that say how much memory it uses now."""

    cpus: float
    memory_bytes: int
    memory_usage_file: Path | None
    memory_stat_file: Path | None


def job_limits(root: Path = Path("/")) -> JobLimits:
    """The limits of this process's job. `root` is where /proc and /sys are looked for."""
    folders = _cgroup_folders(root)
    memory = int(psutil.virtual_memory().total)
    usage_file = stat_file = None
    cpus = float(_affinity())
    for folder in folders:
        limit, usage = _memory_limit(folder)
        if limit is not None and limit < memory:
            memory, usage_file, stat_file = limit, usage, folder / "memory.stat"
        quota = _cpu_quota(folder)
        if quota is not None:
            cpus = min(cpus, quota)
    return JobLimits(cpus, memory, usage_file, stat_file)


def job_memory_used(limits: JobLimits) -> int:
    """Bytes in use by the job where a cgroup limits it (without page cache that can be given back), else by all."""
    if limits.memory_usage_file is None:
        memory = psutil.virtual_memory()
        return int(memory.total - memory.available)
    used = int(limits.memory_usage_file.read_text())
    return max(used - _reclaimable(limits.memory_stat_file), 0)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_folders(root: Path) -> list[Path]:
    """The folders of this process's cgroups, v2 and v1, with those above them: each may hold a limit."""
    folders = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        mounts = [root / "sys/fs/cgroup"] if not controllers else []
        mounts += [root / "sys/fs/cgroup" / name for name in controllers.split(",") if name in ("memory", "cpu")]
        for mount in mounts:
            folder = mount / path.lstrip("/")
            while folder != mount:
                folders.append(folder)
                folder = folder.parent
            folders.append(mount)
    return folders


def _memory_limit(folder: Path) -> tuple[int | None, Path | None]:
    for limit_name, usage_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        text = _text(folder / limit_name)
        if text.isdigit() and int(text) < NO_LIMIT and (folder / usage_name).exists():
            return int(text), folder / usage_name
    return None, None


def _cpu_quota(folder: Path) -> float | None:
    fields = _text(folder / "cpu.max").split()
    if len(fields) == 2 and fields[0].isdigit():
        return int(fields[0]) / int(fields[1])
    quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    if quota.isdigit() and period.isdigit() and int(period):
        return int(quota) / int(period)
    return None


def _reclaimable(stat_file: Path | None) -> int:
    if stat_file is None:
        return 0
    fields = dict(line.split(" ", 1) for line in _lines(stat_file) if " " in line)
    return int(fields.get("total_inactive_file", fields.get("inactive_file", "0")))


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
