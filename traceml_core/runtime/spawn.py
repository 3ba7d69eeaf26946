"""Starts the aggregator's process, so that nothing of the user's can get into it and nothing of the run's leaks out."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

import traceml_core
from traceml_core.runtime.aggregator_config import AggregatorConfig

MODULES = ("msgspec", "zmq", "psutil", "numpy", "rich", "pynvml")
# `-I` keeps the working directory and PYTHON* variables out. This package is loaded from where it lies here, without
# its parent on the path: that may be the user's working directory. What it imports is looked for there last.
CODE = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
listening_fd, owner_fd, package, *places = sys.argv[1:]
sys.path += [place for place in places if place not in sys.path]
spec = spec_from_file_location("traceml_core", package + "/__init__.py", submodule_search_locations=[package])
sys.modules["traceml_core"] = module = module_from_spec(spec)
spec.loader.exec_module(module)
from traceml_core.aggregator.service import main
main(int(listening_fd), int(owner_fd))
"""
# A shell that has started something and ended: what it started is nobody's child.
APART = ("/bin/sh", "-c", '"$@" >/dev/null & echo $!', "traceml")
EXIT_LOOK_S = 0.002
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "HIP_VISIBLE_DEVICES": "",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class AggregatorProcess:
    """A running aggregator, and the pipe that tells it that its owner lives."""

    def __init__(
        self,
        config: AggregatorConfig,
        sockets: Sequence[socket.socket],
        errors_log: Path | None,
        *,
        apart: bool = False,
    ) -> None:
        """Start it; nothing waits for it. On the first of the sockets it hears the ranks; it gets the others too.

        `apart`: not as a child of this process.

        Raises:
            OSError: the process could not be started.
        """
        read_end, self._write_end = os.pipe()
        try:
            os.write(self._write_end, msgspec.json.encode(config) + b"\n")
            self._process = _start([one.fileno() for one in sockets], read_end, errors_log, apart)
        except OSError:
            os.close(self._write_end)
            raise
        finally:
            os.close(read_end)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def exit_status(self) -> int | None:
        """How it ended: its exit code, a signal's number below zero, None while it runs."""
        return self._process.poll()

    def close_pipe(self) -> None:
        """Tell the aggregator that its owner is done; it ends by itself."""
        write_end, self._write_end = self._write_end, -1
        if write_end >= 0:
            os.close(write_end)

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended; False where it has not within `timeout_s`."""
        # Popen.wait looks ever more rarely, up to 50 ms late: training would wait for that at the end of every run.
        until_s = time.monotonic() + timeout_s
        while self.is_running():
            if time.monotonic() >= until_s:
                return False
            time.sleep(EXIT_LOOK_S)
        return True

    def wake(self) -> None:
        """Have it go on where somebody has stopped it (SIGSTOP); nothing happens to one that runs, or has ended."""
        self._process.send_signal(signal.SIGCONT)

    def abandon(self) -> None:
        """Leave it to end by itself; a thread waits for it in training's place, so that no zombie stays.

        One that sleeps could not end: it is woken.
        """
        self.wake()
        with suppress(RuntimeError):  # no thread at the interpreter's end, where nothing is left to be tidy for
            threading.Thread(target=self._process.wait, name="traceml-reaper", daemon=True).start()


class ProcessApart:
    """A process that is no child of this one, so that it cannot be waited for, only looked at."""

    def __init__(self, pid: int) -> None:
        """Look at the process `pid`, which has just been started.

        Raises:
            OSError: it has ended already.
        """
        self.pid = pid
        try:
            self._process = psutil.Process(pid)  # knows its creation time, so no later process is taken for it
        except psutil.NoSuchProcess as error:
            raise OSError("it ended at once") from error

    def poll(self) -> int | None:
        """None while it runs."""
        try:
            runs = self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            runs = False
        return None if runs else 0

    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing happens where it has ended."""
        with suppress(psutil.NoSuchProcess):
            self._process.send_signal(number)

    def wait(self) -> None:
        """Return at once: whoever became its parent tidies up after it."""


def module_places(working_directories: tuple[str, ...]) -> list[str]:
    """The directories that hold what the aggregator imports, found without importing it.

    A user's working directory is none of them: whatever lies there is the user's.
    """
    places: list[str] = []
    for name in MODULES:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):  # ValueError: a stand-in without a spec in sys.modules
            continue
        if spec is None:
            continue
        for location in spec.submodule_search_locations or [spec.origin or ""]:
            place = str(Path(location).absolute().parent)
            if place not in places and place not in working_directories:
                places.append(place)
    return places


def _start(
    listening_fds: list[int], owner_fd: int, errors_log: Path | None, apart: bool
) -> subprocess.Popen[bytes] | ProcessApart:
    if not sys.executable:
        raise OSError("this Python does not know its own interpreter")
    package = str(Path(traceml_core.__file__).absolute().parent)
    places = module_places((str(Path.cwd()), str(Path(sys.path[0] if sys.path else "").absolute())))
    log = _open_log(errors_log)
    try:
        command = [sys.executable, "-I", "-c", CODE, str(listening_fds[0]), str(owner_fd), package, *places]
        started = subprocess.Popen(
            [*APART, *command] if apart else command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if apart else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if log is None else log,
            pass_fds=(*listening_fds, owner_fd),
            env={**os.environ, **ENVIRONMENT},
            cwd="/",
            start_new_session=True,
        )
        return ProcessApart(_told_pid(started)) if apart else started
    finally:
        if log is not None:
            os.close(log)


def _told_pid(shell: subprocess.Popen[bytes]) -> int:
    told = shell.communicate()[0].strip()
    if not told.isdigit():
        raise OSError("the shell that was to start it did not")
    return int(told)


def _open_log(path: Path | None) -> int | None:
    if path is None:
        return None
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError:
        return None
