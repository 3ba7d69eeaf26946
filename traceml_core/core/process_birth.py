"""Which process a number means: one that has ended must not be taken for a later one of the same number."""

from __future__ import annotations

import sys
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE = Path("/proc/self/ns/pid")


def birth_of(pid: int) -> str | None:
    """What tells this process from every other one of its number, at any time; None where it has ended.

    On Linux the boot and the clock ticks since then: the wall clock may jump, this does not.

    Raises:
        PermissionError: the system does not tell.
    """
    return _linux_birth(pid) if sys.platform.startswith("linux") else _other_birth(pid)


def pid_namespace() -> str | None:
    """Among which processes numbers tell this one's apart; None where the system has no such thing."""
    try:
        return str(PID_NAMESPACE.readlink())
    except OSError:
        return None


def _linux_birth(pid: int) -> str | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        boot = BOOT_ID.read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, ticks = fields[0], fields[19]
    return None if state in (b"Z", b"X") else f"{boot}/{ticks.decode()}"


def _other_birth(pid: int) -> str | None:
    import psutil  # not on Linux, where it would cost the aggregator a part of its start

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.1f}"
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied as error:
        raise PermissionError(f"process {pid} cannot be looked at") from error
