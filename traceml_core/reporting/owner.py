"""Whether the process that owns a run is still there."""

from __future__ import annotations

import socket

from traceml_core.core.process_birth import birth_of
from traceml_core.core.run_folder import Manifest

SILENT_AFTER_S = 30.0


def owner_lives(manifest: Manifest | None, *, silent_s: float) -> bool:
    """True while the process that owns the run runs on this host.

    Of an owner that cannot be asked (another host, another user's) it is true for `SILENT_AFTER_S` after the run was
    last heard of, `silent_s` seconds ago.
    """
    if manifest is None:
        return False
    if manifest.owner.host != socket.gethostname():
        return silent_s < SILENT_AFTER_S
    try:
        birth = birth_of(manifest.owner.pid)
    except PermissionError:
        return silent_s < SILENT_AFTER_S
    return birth is not None and birth == manifest.owner.birth
