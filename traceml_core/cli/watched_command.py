"""A command that runs beside its recording: it has the terminal, is told of signals, and its end is passed on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from time import perf_counter_ns
from types import FrameType
from typing import Any

from traceml_core.core.settings import Settings
from traceml_core.runtime.session import open_session
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import RunError, RunStatus

# The terminal sends these to every process of its foreground group, so to the command as well.
FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
PASSED_ON = (*FROM_TERMINAL, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class WatchedCommand:
    """A running command. Signals that end or speak to this process go to the command; this process outlives it."""

    def __init__(self, words: Sequence[str]) -> None:
        """Start it, with this process's streams, folder, environment and process group.

        Raises:
            OSError: it cannot be started.
        """
        self._started_ns = perf_counter_ns()
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        # One that is ignored here (by nohup, say) stays so, here and in the command.
        heard = [number for number in PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
        before: dict[int, Any] = {number: signal.signal(number, self._pass_on) for number in heard}
        try:
            self._process = subprocess.Popen(words)
        except OSError:
            for number, handler in before.items():
                signal.signal(number, handler)
            raise
        for number in self._early:
            self._process.send_signal(number)

    def record(self, settings: Settings) -> int:
        """Record its processes and the machine until it ends, and report; its exit code as shells tell it."""
        assert self._process is not None
        session = open_session(
            settings, RunFacts(framework="manual"), started_ns=self._started_ns, watched_pid=self._process.pid
        )
        code = self._process.wait()
        status, error = _ending(code)
        session.close(status, error)
        return code if code >= 0 else 128 - code

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if number in FROM_TERMINAL and _is_in_foreground():
            return
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)


def _ending(code: int) -> tuple[RunStatus, RunError | None]:
    """What an exit code says of the run."""
    if code == 0:
        return "completed", None
    if code > 0:
        return "failed", RunError(f"exit code {code}")
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return ("interrupted" if name in ("SIGINT", "SIGTERM", "SIGHUP") else "failed"), RunError(name)


def _is_in_foreground() -> bool:
    """Whether the terminal sends its signals to this process group."""
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False  # there is none
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
