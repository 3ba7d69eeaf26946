"""Files that are either whole or not there: written beside their place, then renamed into it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomic(path: Path, data: bytes, *, synced: bool = True) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one. The umask is respected.

    With `synced` that holds through a power cut too; who cannot wait for the disk says `sync` later.

    Raises:
        OSError: the file could not be written; the old one is untouched and nothing is left beside it.
    """
    with whole_file(path, synced=synced) as file:
        file.write(data)


@contextmanager
def whole_file(path: Path, *, synced: bool = True) -> Iterator[BinaryIO]:
    """A file to write to that becomes `path` when the block ends, as `write_atomic` does; what fails leaves nothing.

    Raises:
        OSError: the file could not be written.
    """
    beside = _beside(path)
    try:
        with beside.open("xb") as file:
            yield file
            if synced:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill that becomes `path` when the block ends; what fails leaves nothing.

    Raises:
        OSError: it could not be made, or something else is at `path` by then.
    """
    beside = _beside(path)
    beside.mkdir()
    try:
        yield beside
        beside.rename(path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
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


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")
