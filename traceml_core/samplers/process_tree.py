"""The children of a process and what they use, read as cheaply as the system lets it be read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import psutil

KIB = 1024
ON_LINUX = sys.platform == "linux"
READ_BYTES = 65_536
TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class ResidentMemory(msgspec.Struct, frozen=True):
    """What a process holds in memory; `mapped_file_bytes` is the part that mirrors files, null where not told."""

    rss_bytes: int
    mapped_file_bytes: int | None


class Activity(msgspec.Struct, frozen=True):
    """The CPU seconds that a process has used since it began, and its threads."""

    cpu_s: float
    threads: int


def descendants(pid: int, left_out: int | None = None, proc: Path = Path("/proc")) -> list[int]:
    """The process's children and theirs, without `left_out` (the aggregator) and what it started."""
    try:
        return _descendants(pid, left_out, proc)
    except FileNotFoundError:  # not Linux, or a kernel without /proc/*/task/*/children
        return _descendants_by_search(pid, left_out)


def resident_memory(pid: int, proc: Path = Path("/proc")) -> ResidentMemory | None:
    """Resident memory of a process; null where it has ended."""
    try:
        status = _contents(f"{proc}/{pid}/status")
    except OSError:
        return None if ON_LINUX else _resident_memory_by_psutil(pid)
    rss_kib, file_kib = _field_kib(status, b"\nVmRSS:"), _field_kib(status, b"\nRssFile:")
    if rss_kib is None:
        return None  # a process that has ended, and that nobody has waited for yet
    return ResidentMemory(rss_kib * KIB, None if file_kib is None else file_kib * KIB)


def activity(pid: int, proc: Path = Path("/proc")) -> Activity | None:
    """What a process has done so far; null where it has ended."""
    try:
        stat = _contents(f"{proc}/{pid}/stat")
    except OSError:
        return None if ON_LINUX else _activity_by_psutil(pid)
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before may hold anything, spaces and brackets included
    if fields[0] in (b"Z", b"X"):
        return None  # it has ended, and nobody has waited for it yet
    return Activity((int(fields[11]) + int(fields[12])) / TICKS_PER_S, int(fields[17]))


def _descendants(pid: int, left_out: int | None, proc: Path) -> list[int]:
    found: list[int] = []
    parents = [pid]
    while parents:
        for child in _children(parents.pop(), proc):
            if child != left_out:
                found.append(child)
                parents.append(child)
    return found


def _children(pid: int, proc: Path) -> list[int]:
    """Each thread lists the processes that it started.

    Raises:
        FileNotFoundError: the system does not tell.
    """
    tasks = f"{proc}/{pid}/task"
    try:
        threads = os.listdir(tasks)  # noqa: PTH208 - names are all that is needed
    except FileNotFoundError:
        if proc.joinpath("self").exists():
            return []  # it has ended meanwhile
        raise
    children: list[int] = []
    for thread in threads:
        try:
            children += map(int, _contents(f"{tasks}/{thread}/children").split())
        except ProcessLookupError:
            continue  # the thread has ended meanwhile
        except FileNotFoundError:
            if Path(f"{tasks}/{thread}").exists():
                raise
    return children


def _descendants_by_search(pid: int, left_out: int | None) -> list[int]:
    """The same by a look at every process of the machine."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    skipped = {left_out}
    found = []
    for child in children:
        try:
            is_skipped = child.pid in skipped or child.ppid() in skipped
        except psutil.Error:
            continue  # it has ended meanwhile
        if is_skipped:
            skipped.add(child.pid)
        else:
            found.append(child.pid)
    return found


def _activity_by_psutil(pid: int) -> Activity | None:
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return Activity(float(times.user + times.system), process.num_threads())
    except psutil.Error:
        return None


def _resident_memory_by_psutil(pid: int) -> ResidentMemory | None:
    try:
        return ResidentMemory(int(psutil.Process(pid).memory_info().rss), None)
    except psutil.Error:
        return None


def _field_kib(status: bytes, name: bytes) -> int | None:
    at = status.find(name)
    return None if at < 0 else int(status[at + len(name) : status.index(b"\n", at + 1)].split()[0])


def _contents(path: str) -> bytes:
    # Not `open`: its buffers and its text layer cost more than the read.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, READ_BYTES):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)
