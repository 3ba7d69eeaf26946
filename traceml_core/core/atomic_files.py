"""Files that are either whole or not there: written beside their place, then renamed into it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomic(path: Path, data: bytes, *, synced: bool = True) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one. The umask is respected.

    With `synced` that holds through a power cut too; who cannot wait for the disk says `sync` later.

    Raises:
        OSError: the file could not be written; the old one is untouched and nothing is left beside it.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            file.write(data)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Have the disk hold what the file at `path` holds.

    Raises:
        OSError: it is gone, or the disk failed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
