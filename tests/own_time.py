"""Time as processes get to live it: a limit in these seconds says what it says on a machine of one's own.

A crowded machine makes everything longer. So does one that is slow, or that stands still for a while. What a limit is
there for, a wait for something that does not come, it makes no longer: that is counted in beats.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

BEAT_S = 0.02


class Beats:
    """The time of a `with` block, by the beats of a thread: where this process gets no core, there are none."""

    def __init__(self, counts: Callable[[], bool] = lambda: True) -> None:
        """Count the beats at which `counts` says so."""
        self.at_s: list[float] = []
        self._counts = counts
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    @property
    def seconds(self) -> float:
        """The time that was counted."""
        return len(self.at_s) * BEAT_S

    def between(self, began_s: float, ended_s: float) -> float:
        """The part of it that lies between two moments of `time.monotonic`."""
        return sum(began_s <= at_s <= ended_s for at_s in self.at_s) * BEAT_S

    def __enter__(self) -> Beats:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._is_over.wait(BEAT_S):
            if self._counts():
                self.at_s.append(time.monotonic())


class OwnTime:
    """What processes do of their own accord in a `with` block: the CPU time they use, and the time they all sleep.

    What is left is the machine's: time in which one of them waits for a core or a disk.
    """

    def __init__(self, processes: Callable[[], Iterable[psutil.Process]]) -> None:
        """Watch what `processes` gives at each beat."""
        self._processes = processes
        self._used_s: dict[int, tuple[float, float]] = {}
        self._beats = Beats(self._look)

    @property
    def slept_s(self) -> float:
        """How long all of them slept."""
        return self._beats.seconds

    @property
    def seconds(self) -> float:
        """How long they slept or worked."""
        return self.slept_s + sum(last_s - first_s for first_s, last_s in self._used_s.values())

    def slept_between(self, began_s: float, ended_s: float) -> float:
        """How long all of them slept between two moments of `time.monotonic`."""
        return self._beats.between(began_s, ended_s)

    def __enter__(self) -> OwnTime:
        self._beats.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._beats.__exit__()

    def _look(self) -> bool:
        sleeps = True
        for process in self._processes():
            try:
                times = process.cpu_times()
                used_s = times.user + times.system
                self._used_s[process.pid] = (self._used_s.get(process.pid, (used_s, 0.0))[0], used_s)
                sleeps = sleeps and _sleeps(process)
            except psutil.Error:
                continue  # it has ended meanwhile
        return sleeps


def own_seconds_until_gone(process: psutil.Process, limit_s: float) -> float:
    """Wait until a process has ended; how much of that time was its own.

    Raises:
        psutil.TimeoutExpired: it has not within `limit_s`.
    """
    with OwnTime(lambda: [process]) as own_time:
        process.wait(limit_s)
    return own_time.seconds


def _sleeps(process: psutil.Process) -> bool:
    """Whether none of its threads runs, or would if there were a core or a disk for it."""
    if not sys.platform.startswith("linux"):
        return process.status() != psutil.STATUS_RUNNING
    try:
        return not any(_state(stat) in "RD" for stat in Path(f"/proc/{process.pid}/task").glob("*/stat"))
    except OSError:
        return True  # it has ended meanwhile


def _state(stat: Path) -> str:
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"  # it has ended meanwhile
