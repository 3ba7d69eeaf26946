"""The children of a process and what they use, read as cheaply as the system lets it be read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
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


def descendants(
    pid: int, left_out: int | None = None, proc: Path = Path("/proc"), *, local_rank: int | None = None
) -> list[int]:
    """The process's children and theirs, without `left_out` (the aggregator) and what it started.

    Where the process is a rank itself, its `local_rank` leaves other ranks out as well. Lightning's launcher makes
    them children of the one with local rank 0; the LOCAL_RANK that they were started with tells them from workers.
    """

    def is_left_out(child: int, parent: int) -> bool:
        if child == left_out:
            return True
        is_launched = local_rank is not None and parent == pid
        return is_launched and _started_as(child, proc) not in (None, str(local_rank))

    try:
        return _descendants(pid, is_left_out, proc)
    except FileNotFoundError:  # not Linux, or a kernel without /proc/*/task/*/children
        return _descendants_by_search(pid, is_left_out)


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


def _descendants(pid: int, is_left_out: Callable[[int, int], bool], proc: Path) -> list[int]:
    found: list[int] = []
    parents = [pid]
    while parents:
        parent = parents.pop()
        for child in _children(parent, proc):
            if not is_left_out(child, parent):
                found.append(child)
                parents.append(child)
    return found


def _started_as(pid: int, proc: Path) -> str | None:
    """The LOCAL_RANK that a process was started with, a forked one its parent; null where there was none."""
    try:
        if ON_LINUX:
            variables = _contents(f"/proc/{pid}/environ").split(b"\0")
            found = next((one for one in variables if one.startswith(b"LOCAL_RANK=")), None)
            return None if found is None else found.partition(b"=")[2].decode()
        return psutil.Process(pid).environ().get("LOCAL_RANK")
    except (OSError, psutil.Error):  # it has ended meanwhile, or is another user's
        return None


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
    children: dict[int, None] = {}  # in order, each once: one may be handed on between two reads
    for thread in reversed(threads):  # a thread that ends hands its children to the first one, so that is read last
        try:
            children |= dict.fromkeys(map(int, _contents(f"{tasks}/{thread}/children").split()))
        except ProcessLookupError:
            continue  # the thread has ended meanwhile
        except FileNotFoundError:
            if Path(f"{tasks}/{thread}").exists():
                raise
    return list(children)


def _descendants_by_search(pid: int, is_left_out: Callable[[int, int], bool]) -> list[int]:
    """The same by a look at every process of the machine."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    skipped: set[int] = set()
    found = []
    for child in children:
        try:
            parent = child.ppid()
            is_skipped = parent in skipped or is_left_out(child.pid, parent)
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
