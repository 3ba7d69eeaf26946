"""Whether the process that owns the run still lives: a pipe that it holds open, and its process itself."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

from traceml_core.core.process_birth import birth_of

POLL_INTERVAL_S = 1.0
LINE_LIMIT_BYTES = 64 * 1024


def read_line(descriptor: int, timeout_s: float = 10.0) -> bytes:
    """The first line that the owner writes into its pipe, without the newline.

    Raises:
        EOFError: the owner was gone, or silent for `timeout_s`, before the line was complete.
    """
    deadline = time.monotonic() + timeout_s
    line = b""
    while not line.endswith(b"\n"):
        wait_s = max(deadline - time.monotonic(), 0.0)
        if len(line) > LINE_LIMIT_BYTES or not select.select([descriptor], [], [], wait_s)[0]:
            raise EOFError("the owner of the run did not say what to record")
        part = os.read(descriptor, 4096)
        if not part:
            raise EOFError("the owner of the run was gone before it said what to record")
        line += part
    return line[:-1]


class OwnerWatch:
    """Tells when the owner has closed its pipe or has ended. Costs a system call each time it is asked."""

    def __init__(self, pipe: int, pid: int, birth: str | None) -> None:
        """Watch the pipe's write end, and the process `pid` of this birth."""
        self._poll = select.poll()
        self._poll.register(pipe, select.POLLIN | select.POLLHUP)
        self._pipe = pipe
        self._gone = False
        self._is_alive: Callable[[], bool] | None = None
        try:
            # A process descriptor cannot be mistaken for a later process of the same number.
            self._poll.register(os.pidfd_open(pid), select.POLLIN)
        except ProcessLookupError:
            self._gone = True
        except (AttributeError, OSError):
            self._is_alive = lambda: _is_alive(pid, birth)
        self._asked_at = time.monotonic()

    def is_gone(self) -> bool:
        """Whether the owner has closed the pipe or has ended; once true it stays so."""
        if not self._gone:
            self._gone = any(self._says_gone(descriptor, event) for descriptor, event in self._poll.poll(0))
        if not self._gone and self._is_alive is not None and time.monotonic() - self._asked_at >= POLL_INTERVAL_S:
            self._asked_at = time.monotonic()
            self._gone = not self._is_alive()
        return self._gone

    def _says_gone(self, descriptor: int, event: int) -> bool:
        if descriptor != self._pipe:
            return True  # a process descriptor is readable once its process has ended
        if event & select.POLLIN:
            return os.read(self._pipe, 4096) == b""
        return bool(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL))


def _is_alive(pid: int, birth: str | None) -> bool:
    try:
        return birth_of(pid) == birth is not None
    except PermissionError:
        return True
