"""What the job may use: its cgroup's memory and CPU quota, its CPU affinity, else the machine's."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import psutil

NO_LIMIT = 1 << 60  # cgroup v1 spells 'no limit' as a number near 2**63


class CpuQuota(msgspec.Struct, frozen=True):
    """A cgroup's share of CPU time, and the file that counts how much of it was used, in seconds ÷ `unit_s`."""

    cpus: float
    usage_file: Path
    unit_s: float


class MemoryLimit(msgspec.Struct, frozen=True):
    """A cgroup's memory limit, and the files that say how much is used."""

    limit_bytes: int
    usage_file: Path
    stat_file: Path


class JobLimits(msgspec.Struct, frozen=True):
    """The job's CPUs (a quota may be a fraction) and memory.

    `cpu_numbers` are those that its threads may run on. `quota` and `memory` are null where the job's cgroups set no
    limit that is tighter than its affinity and the machine.
    """

    cpus: float
    cpu_numbers: frozenset[int]
    memory_bytes: int
    quota: CpuQuota | None
    memory: MemoryLimit | None


def job_limits(
    root: Path = Path("/"), machine_bytes: int | None = None, cpus: frozenset[int] | None = None
) -> JobLimits:
    """The limits of this process's job.

    Args:
        root: where /proc and /sys are looked for.
        machine_bytes: the machine's memory; by default it is asked for.
        cpus: the numbers of the CPUs that the process may run on; by default they are asked for.
    """
    machine_bytes = int(psutil.virtual_memory().total) if machine_bytes is None else machine_bytes
    cpus = _affinity() if cpus is None else cpus
    folders = _cgroup_folders(root)
    memory = min((limit for f in folders if (limit := _memory_limit(f))), key=lambda m: m.limit_bytes, default=None)
    quota = min((quota for f in folders if (quota := _cpu_quota(root, f))), key=lambda q: q.cpus, default=None)
    if memory is not None and memory.limit_bytes >= machine_bytes:
        memory = None
    if quota is not None and quota.cpus >= len(cpus):
        quota = None
    return JobLimits(
        cpus=float(len(cpus)) if quota is None else quota.cpus,
        cpu_numbers=cpus,
        memory_bytes=machine_bytes if memory is None else memory.limit_bytes,
        quota=quota,
        memory=memory,
    )


def job_memory_used(limits: JobLimits) -> int | None:
    """Bytes in use by the job where a cgroup limits it (without page cache that can be given back), else by all.

    Null where the cgroup cannot be read any more.
    """
    if limits.memory is None:
        memory = psutil.virtual_memory()
        return int(memory.total - memory.available)
    used = _number(limits.memory.usage_file)
    if used is None:
        return None
    fields = dict(line.split(" ", 1) for line in _lines(limits.memory.stat_file) if " " in line)
    return max(used - int(fields.get("total_inactive_file", fields.get("inactive_file", "0"))), 0)


def quota_used_s(quota: CpuQuota) -> float | None:
    """CPU seconds that the job's cgroup has used since it was made; null where it cannot be read any more."""
    if quota.usage_file.name == "cpu.stat":
        fields = dict(line.split(" ", 1) for line in _lines(quota.usage_file) if " " in line)
        used = int(fields["usage_usec"]) if "usage_usec" in fields else None
    else:
        used = _number(quota.usage_file)
    return None if used is None else used * quota.unit_s


def _affinity() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(os.getpid()))  # of the main thread; 0 would be the calling one
    return frozenset(range(os.cpu_count() or 1))


def _cgroup_folders(root: Path) -> list[Path]:
    """The folders of this process's cgroups, v2 and v1, with those above them: each may hold a limit."""
    folders = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"] if not controllers else []
        mounts += [root / "sys/fs/cgroup" / name for name in controllers.split(",") if name in ("memory", "cpu")]
        for mount in mounts:
            folder = mount / path.lstrip("/")
            while folder != mount:
                folders.append(folder)
                folder = folder.parent
            folders.append(mount)
    return folders


def _memory_limit(folder: Path) -> MemoryLimit | None:
    for limit_name, usage_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit = _number(folder / limit_name)
        if limit is not None and limit < NO_LIMIT and (folder / usage_name).exists():
            return MemoryLimit(limit, folder / usage_name, folder / "memory.stat")
    return None


def _cpu_quota(root: Path, folder: Path) -> CpuQuota | None:
    fields = _text(folder / "cpu.max").split()
    if len(fields) == 2 and fields[0].isdigit():
        return CpuQuota(int(fields[0]) / int(fields[1]), folder / "cpu.stat", 1e-6)
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    if quota and period:
        usage_file = folder / "cpuacct.usage"
        if not usage_file.exists():  # the two controllers may be mounted apart
            inside = folder.relative_to(root / "sys/fs/cgroup/cpu")
            usage_file = root / "sys/fs/cgroup/cpuacct" / inside / "cpuacct.usage"
        return CpuQuota(quota / period, usage_file, 1e-9)
    return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None  # 'max' and -1 are no numbers


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
