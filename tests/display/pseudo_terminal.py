"""A command in a terminal of its own: what its screen shows, what is typed, and how the terminal is left behind."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import TracebackType

import pyte
from waiting import LIMIT_S, wait_for

ALTERNATE_SCREEN = (b"\x1b[?1049h", b"\x1b[?1049l")
CURSOR = (b"\x1b[?25l", b"\x1b[?25h")


class PseudoTerminal:
    """Runs `words` in a terminal of this size until the `with` block ends."""

    def __init__(self, words: list[str], columns: int, lines: int, cwd: Path | None = None, **variables: str) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.output = b""
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            words,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            cwd=cwd,
            env={**kept, "TERM": "xterm-256color", "PYTHONUTF8": "1", **variables},
            preexec_fn=_take_terminal,
        )

    def __enter__(self) -> PseudoTerminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def read(self) -> str:
        """Everything that the screen shows by now."""
        while select.select([self.master], [], [], 0)[0]:
            part = os.read(self.master, 65536)
            self.output += part
            self._stream.feed(part)
        return "\n".join(self.screen.display)

    def wait_for_text(self, text: str) -> str:
        """The screen as soon as it shows `text`."""
        wait_for(lambda: text in self.read())
        return self.read()

    def wait_for_end(self) -> int:
        """The exit code, once the command has ended."""
        wait_for(lambda: self.read() is not None and self.process.poll() is not None, LIMIT_S)
        self.read()
        return self.process.returncode

    def assert_left_as_it_was(self) -> None:
        assert termios.tcgetattr(self.slave) == self.before
        assert self.output.count(ALTERNATE_SCREEN[0]) == self.output.count(ALTERNATE_SCREEN[1]) > 0
        assert self.output.rindex(ALTERNATE_SCREEN[1]) > self.output.rindex(ALTERNATE_SCREEN[0])
        assert self.output.rindex(CURSOR[1]) > self.output.rindex(CURSOR[0])


def traceml(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "traceml_core", *map(str, arguments)]


def _take_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
