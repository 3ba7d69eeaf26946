"""Whether a file lies on a network file system, where SQLite's write-ahead log must not be used."""

from __future__ import annotations

import sys
from pathlib import Path

# WAL needs memory shared between all processes that use the file: none of these gives that.
_KERNEL_KINDS = frozenset(("9p", "afs", "ceph", "cifs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "virtiofs"))
_CLUSTER_KINDS = frozenset(
    ("afpfs", "beegfs", "davfs", "glusterfs", "orangefs", "panfs", "pvfs2", "smbfs", "webdav", "wekafs")
)
_FUSE_KINDS = frozenset(("fuse.ceph", "fuse.glusterfs", "fuse.juicefs", "fuse.s3fs", "fuse.sshfs"))
NETWORK_KINDS = _KERNEL_KINDS | _CLUSTER_KINDS | _FUSE_KINDS


def is_network_file_system(path: Path, mounts_file: Path = Path("/proc/self/mounts")) -> bool:
    """Whether `path` lies on a file system that other machines may write too. Where that cannot be told: no."""
    mounts = _linux_mounts(mounts_file) if sys.platform.startswith("linux") else _other_mounts()
    real = path.absolute().resolve()
    kind = next((mounts[str(above)] for above in (real, *real.parents) if str(above) in mounts), None)
    return kind in NETWORK_KINDS


def _linux_mounts(mounts_file: Path) -> dict[str, str]:
    """Kind of file system by mount point; of two mounts on one point the later one is on top."""
    try:
        lines = mounts_file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    fields = [line.split(" ") for line in lines]
    return {point.replace("\\040", " "): kind for _, point, kind, *_ in fields}


def _other_mounts() -> dict[str, str]:
    import psutil  # not on Linux, where it would cost the aggregator a part of its start

    return {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
