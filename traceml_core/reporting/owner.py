"""Whether the process that owns a run is still there."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path

from traceml_core.core.process_birth import birth_of, pid_namespace
from traceml_core.core.run_folder import Manifest, Owner

SILENT_AFTER_S = 30.0


def owner_lives(manifest: Manifest | None, *, silent_s: float) -> bool:
    """True while the process that owns the run runs on this host.

    Of an owner that cannot be asked (another host or container, another user's) it is true for `SILENT_AFTER_S` after
    the run was last heard of, `silent_s` seconds ago.
    """
    if manifest is None:
        return False
    if _is_elsewhere(manifest.owner):
        return silent_s < SILENT_AFTER_S
    try:
        birth = birth_of(manifest.owner.pid)
    except PermissionError:
        return silent_s < SILENT_AFTER_S
    return birth is not None and birth == manifest.owner.birth


def _is_elsewhere(owner: Owner) -> bool:
    """Whether its process number means nothing here, or another process."""
    return owner.host != socket.gethostname() or owner.pid_namespace not in (None, pid_namespace())


def silence_of(folder: Path, unix_s: float | None = None) -> float:
    """Seconds since a run last wrote to its history, by the clock of its disk, until now or until `unix_s`."""
    written_s = 0.0
    for path in folder.glob("telemetry.sqlite*"):
        with suppress(OSError):  # SQLite has tidied it away meanwhile
            written_s = max(written_s, path.stat().st_mtime)
    return (time.time() if unix_s is None else unix_s) - written_s
