"""Where TraceML's own failures go: `errors.log` of the run, once per cause, and a count per edge.

Never the user's logging, and never anything but our own failures.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = "traceml_core.errors"
EARLY_FAILURES = 100

# What failed in this process, by component; the sender reports it with every batch.
FAILURES: Counter[str] = Counter()


class _ErrorHandler(logging.Handler):
    """Appends to a file once there is one; what comes before is kept and written then.

    It survives a full disk and a folder that is gone: there is no better place left to complain.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
        self._path: Path | None = None
        # Text, not records: a traceback would keep the user's objects alive.
        self._early: deque[str] = deque(maxlen=EARLY_FAILURES)

    def open(self, path: Path | None) -> None:
        """Append to `path` from now on; with None, keep what comes for the next one."""
        self.acquire()
        try:
            self._path = path
            if self._early and path is not None:
                self._append(path, "".join(self._early))
            self._early.clear()
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{self.format(record)}\n"
        if self._path is None:
            self._early.append(text)
        else:
            self._append(self._path, text)

    def _append(self, path: Path, text: str) -> None:
        # Opened each time: failures are few, the aggregator appends to the same file, and a fork inherits nothing.
        try:
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            FAILURES["error_log"] += 1


def get_error_logger(component: str) -> logging.Logger:
    """The logger of one component; it writes to `errors.log` once `open_error_log` was called."""
    if component not in _LOGGERS:
        # Not from `logging.getLogger`: a user's `dictConfig` would switch it off, a root handler would print it.
        _LOGGERS[component] = logging.Logger(f"{ROOT}.{component}")
        _LOGGERS[component].addHandler(_HANDLER)
        _LOGGERS[component].propagate = False
    return _LOGGERS[component]


def open_error_log(path: Path) -> None:
    """Send failures to this file from now on, those before it included; made at the first one."""
    _HANDLER.open(path)


def close_error_log() -> None:
    """Close the file, and forget causes and counts: the run is over."""
    _HANDLER.open(None)
    _CAUSES.clear()
    FAILURES.clear()


@contextmanager
def fail_open(
    logger: logging.Logger, doing: str, failures: Counter[str] | None = None, edge: str | None = None
) -> Iterator[None]:
    """Survive a failure of our own while `doing` something: write it down once per cause, count it each time.

    The count goes to `failures`, by default to this process's `FAILURES`, under `edge`, by default the component's
    name.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - this is the one edge where every failure of ours ends
        report_failure(logger, doing, error, failures, edge)


def report_failure(
    logger: logging.Logger,
    doing: str,
    error: BaseException,
    failures: Counter[str] | None = None,
    edge: str | None = None,
) -> None:
    """Write a failure down once per cause, with its traceback, and count it."""
    component = logger.name.rpartition(".")[2]
    (FAILURES if failures is None else failures)[edge or component] += 1
    cause = (component, doing, type(error).__name__)
    if cause not in _CAUSES:
        _CAUSES.add(cause)
        logger.error("[TraceML] %s failed", doing, exc_info=error)


_HANDLER = _ErrorHandler()
_LOGGERS: dict[str, logging.Logger] = {}
_CAUSES: set[tuple[str, str, str]] = set()
