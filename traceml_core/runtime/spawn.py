"""Starts the aggregator's process, so that nothing of the user's can get into it and nothing of the run's leaks out."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from traceml_core.runtime.aggregator_config import AggregatorConfig

MODULES = ("traceml_core", "msgspec", "zmq", "psutil", "numpy", "rich")
# `-I` keeps the working directory and PYTHON* variables out. Where our modules lie is added last, behind Python's own.
CODE = (
    "import sys; sys.path += [path for path in sys.argv[3:] if path not in sys.path];"
    "from traceml_core.aggregator.service import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class AggregatorProcess:
    """A running aggregator, and the pipe that tells it that its owner lives."""

    def __init__(self, config: AggregatorConfig, listener: socket.socket, errors_log: Path | None) -> None:
        """Start it; nothing waits for it.

        Raises:
            OSError: the process could not be started.
        """
        read_end, self._write_end = os.pipe()
        try:
            os.write(self._write_end, msgspec.json.encode(config) + b"\n")
            self._process = _start(listener.fileno(), read_end, errors_log)
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

    def close_pipe(self) -> None:
        """Tell the aggregator that its owner is done; it ends by itself."""
        write_end, self._write_end = self._write_end, -1
        if write_end >= 0:
            os.close(write_end)

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended; False where it has not within `timeout_s`."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def abandon(self) -> None:
        """Leave it to end by itself, without a warning that it still runs."""
        self._process.returncode = 0


def _start(listening_fd: int, owner_fd: int, errors_log: Path | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-c", CODE, str(listening_fd), str(owner_fd), *_module_paths()]
    log = _open_log(errors_log)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if log is None else log,
            pass_fds=(listening_fd, owner_fd),
            env={**os.environ, **ENVIRONMENT},
            cwd="/",
            start_new_session=True,
        )
    finally:
        if log is not None:
            os.close(log)


def _open_log(path: Path | None) -> int | None:
    if path is None:
        return None
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError:
        return None


def _module_paths() -> list[str]:
    """The directories that hold this package and what the aggregator imports, found without importing anything."""
    paths: list[str] = []
    for name in MODULES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            path = str(Path(spec.origin).resolve().parents[1])
            if path not in paths:
                paths.append(path)
    return paths
