"""Whether a folder lies on a network file system, where SQLite's write-ahead log must not be used."""

from __future__ import annotations

import sys
from pathlib import Path

NETWORK_KINDS = frozenset(
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "afs", "glusterfs", "orangefs", "9p"]
    + ["fuse.sshfs", "fuse.glusterfs", "fuse.ceph"]
)


def is_network_file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """True where the mount that holds `folder` is of a network kind; where that cannot be told, not on Linux."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return False
    folder = folder.resolve()
    best, kind = -1, ""
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        if folder.is_relative_to(point) and len(point.parts) > best:
            best, kind = len(point.parts), fields[2]
    return kind in NETWORK_KINDS
