"""A small disk of its own for a run: a tmpfs that can be filled and freed."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from two_hosts import NotPermittedError

SIZE_BYTES = 4 * 2**20
BLOCK = bytes(4096)


class SmallDisk:
    """Mounted at once, gone with `close`."""

    def __init__(self, place: Path) -> None:
        """Mount it on a new folder.

        Raises:
            NotPermittedError: this machine does not let the test mount anything.
        """
        self._place = place
        self._filler = place / "filler"
        place.mkdir()
        if shutil.which("mount") is None:
            raise NotPermittedError("needs the command `mount`")
        options = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(place)]
        done = subprocess.run(options, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotPermittedError(done.stderr.strip())

    def fill(self) -> None:
        """To the last byte."""
        with self._filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(BLOCK)

    def free(self) -> None:
        """Room again."""
        self._filler.unlink()

    def close(self) -> None:
        """Unmount."""
        subprocess.run(["umount", "-l", str(self._place)], capture_output=True, check=False)
