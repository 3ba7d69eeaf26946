"""What the dashboard may read: known files of the run folders in one runs folder. No path leads out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MANIFEST = "manifest.json"
LIVE = "live_summary.json"
FINAL = "final_summary.json"
FILES = (FINAL, LIVE, MANIFEST)
MOST_BYTES = 64 * 2**20


class RunsFolder:
    """Reads below one folder. Names come from strangers: links are not followed, and only `FILES` are opened."""

    def __init__(self, root: Path) -> None:
        """Read in `root`, which need not be there yet."""
        self.root = root

    def names(self) -> list[str]:
        """The folders in it that hold a run, by name."""
        with suppress(OSError), os.scandir(self.root) as entries:
            found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            return sorted(name for name in found if any(self.version(name, file) for file in FILES))
        return []

    def version(self, name: str, file: str) -> str:
        """What changes whenever the file does; empty where it is not there."""
        with suppress(OSError, ValueError), self._opened(name) as folder:
            look = os.stat(file, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(look.st_mode):
                return f"{look.st_ino}-{look.st_size}-{look.st_mtime_ns}"
        return ""

    def changed_s(self, name: str, file: str) -> float | None:
        """When the file was last written, in Unix seconds; null where it is not there."""
        with suppress(OSError, ValueError), self._opened(name) as folder:
            return os.stat(file, dir_fd=folder, follow_symlinks=False).st_mtime
        return None

    def read(self, name: str, file: str) -> bytes | None:
        """What the file holds; null where it is not there, is no plain file of a run, or is far too large for one."""
        if file not in FILES:
            return None
        with suppress(OSError, ValueError), self._opened(name) as folder:
            # Without O_NONBLOCK a pipe of that name would keep the dashboard waiting.
            opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            with os.fdopen(opened, "rb") as content:
                look = os.fstat(content.fileno())
                if stat.S_ISREG(look.st_mode) and look.st_size <= MOST_BYTES:
                    return content.read(MOST_BYTES)
        return None

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """A run folder's descriptor.

        Raises:
            OSError: there is no such folder, or it is a link.
            ValueError: that is no name of a folder.
        """
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ValueError(name)
        root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
        finally:
            os.close(root)
        try:
            yield folder
        finally:
            os.close(folder)
