"""Whether the process that owns a run is still there."""

from __future__ import annotations

import socket

import psutil

from traceml_core.core.run_folder import Manifest

SILENT_AFTER_S = 30.0


def owner_lives(manifest: Manifest | None, *, silent_s: float) -> bool:
    """True while a process of the owner's number and creation time runs on this host.

    Of an owner that cannot be asked (another host, another user's) it is true for `SILENT_AFTER_S` after the run was
    last heard of, `silent_s` seconds ago.
    """
    if manifest is None:
        return False
    if manifest.owner.host != socket.gethostname():
        return silent_s < SILENT_AFTER_S
    try:
        process = psutil.Process(manifest.owner.pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - manifest.owner.created) < 1.0
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return silent_s < SILENT_AFTER_S
