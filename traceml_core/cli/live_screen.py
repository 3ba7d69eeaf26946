"""The terminal of `traceml live`: taken over for the view, and given back as it was, whatever ends it."""

from __future__ import annotations

import io
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from contextlib import suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment

from traceml_core.renderers.screen import Freshness, screen_lines, waiting_lines
from traceml_core.reporting.card_layout import Look, look_for
from traceml_core.reporting.followed_run import Sighting

if TYPE_CHECKING:
    from typing_extensions import Self

# How soon a key, another window size or a signal is noticed.
LOOK_S = 0.1
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT"))
KEYS_THAT_LEAVE = (b"q", b"Q", b"\x04")


class Shown(msgspec.Struct, frozen=True):
    """What is on the screen; it draws itself as large as the terminal is."""

    name: str
    sighting: Sighting

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As many lines as the terminal has."""
        look, lines = _look(console, options.max_width), options.height or options.max_height
        fresh = Freshness(self.sighting.age_s, self.sighting.state == "ending")
        summary = self.sighting.summary
        drawn = (
            waiting_lines(self.name, fresh, look, lines)
            if summary is None
            else screen_lines(summary, fresh, look, lines)
        )
        for number, line in enumerate(drawn):
            if number:
                yield Segment.line()
            line.no_wrap, line.end = True, ""
            line.truncate(options.max_width)
            yield line


class LiveScreen:
    """The whole terminal, from `with` on until its end. SIGTERM and the like end the process, its terminal restored."""

    def __init__(self, shown: Shown) -> None:
        """A screen that begins with `shown`."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a run's name may have letters that the terminal lacks
        self._console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
        self._live = Live(
            shown,
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._keyboard = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._modes: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._suspended = False

    def __enter__(self) -> Self:
        for number in ENDING:
            self._handlers[number] = signal.signal(number, self._end)
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._suspend)
        try:
            self._take()
        except BaseException:
            self._give_back()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A signal that comes now must not keep the terminal from being restored.
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *self._handlers)}
        self._give_back()
        for number, handler in {**handlers, **self._handlers}.items():
            signal.signal(number, handler)

    def show(self, shown: Shown) -> None:
        """Draw this from now on."""
        self._live.update(shown, refresh=True)

    def is_left_within(self, timeout_s: float) -> bool:
        """Wait; True as soon as a person wants to leave. A terminal of another size is drawn anew meanwhile."""
        until_s = time.monotonic() + timeout_s
        size = shutil.get_terminal_size()
        while time.monotonic() < until_s:
            if self._suspended:
                self._stop_for_a_while()
            if self._key() in KEYS_THAT_LEAVE:
                return True
            if shutil.get_terminal_size() != size:
                size = shutil.get_terminal_size()
                self._live.refresh()
        return False

    def _key(self) -> bytes:
        """The key that is pressed next, if one is soon."""
        if self._keyboard is None:
            time.sleep(LOOK_S)
            return b""
        if not select.select([self._keyboard], [], [], LOOK_S)[0]:
            return b""
        key = os.read(self._keyboard, 1)
        if not key:
            self._keyboard = None  # the other end is closed: it would be readable for ever
        return key

    def _take(self) -> None:
        if self._keyboard is not None:
            self._modes = termios.tcgetattr(self._keyboard)
            tty.setcbreak(self._keyboard, termios.TCSADRAIN)
        self._live.start()

    def _give_back(self) -> None:
        with suppress(OSError):  # the terminal is gone
            self._live.stop()
        if self._keyboard is not None and self._modes is not None:
            with suppress(OSError, termios.error):
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._modes)

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        self._suspended = True

    def _stop_for_a_while(self) -> None:
        """Ctrl-Z: the shell gets its terminal back until it lets this go on."""
        self._suspended = False
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    def _end(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)


def _look(console: Console, columns: int) -> Look:
    color = console.color_system is not None and not console.no_color
    return look_for(columns, color, (console.encoding or "").lower().replace("-", "") == "utf8")
