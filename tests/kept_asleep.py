"""A process that cannot be woken: whatever lets it go on, it is stopped again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

LOOK_S = 0.001


@contextmanager
def kept_asleep(process: psutil.Process) -> Iterator[None]:
    """Stop it again and again (SIGSTOP) until the block ends, then let it go on."""
    ends = threading.Event()

    def keep() -> None:
        with suppress(psutil.NoSuchProcess):
            while not ends.wait(LOOK_S):
                process.suspend()

    process.suspend()
    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        yield
    finally:
        ends.set()
        keeper.join()
        with suppress(psutil.NoSuchProcess):
            process.resume()
