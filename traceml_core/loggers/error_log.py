"""Where TraceML's own failures go: `errors.log` of the run, once per cause, and a count per component."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = "traceml_core.errors"
FAILURES: Counter[str] = Counter()
_CAUSES: set[tuple[str, str, str]] = set()


def get_error_logger(component: str) -> logging.Logger:
    """The logger of one component; it writes to `errors.log` once `open_error_log` was called, else nowhere."""
    root = logging.getLogger(ROOT)
    if not root.handlers:
        root.addHandler(logging.NullHandler())
        root.propagate = False
    return root.getChild(component)


def open_error_log(path: Path) -> None:
    """Send failures to this file from now on; the file is opened at the first failure."""
    root = logging.getLogger(ROOT)
    close_error_log()
    root.propagate = False
    root.addHandler(_QuietFileHandler(path, delay=True, encoding="utf-8"))


def close_error_log() -> None:
    """Close the file, if one is open."""
    root = logging.getLogger(ROOT)
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.addHandler(logging.NullHandler())
    _CAUSES.clear()


@contextmanager
def fail_open(logger: logging.Logger, doing: str, failures: Counter[str] | None = None) -> Iterator[None]:
    """Survive a failure of our own while `doing` something: write it down once per cause, count it each time.

    The count goes to `failures`, by default to this process's `FAILURES`, under the component's name.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - this is the one edge where every failure of ours ends
        report_failure(logger, doing, error, failures)


def report_failure(
    logger: logging.Logger, doing: str, error: BaseException, failures: Counter[str] | None = None
) -> None:
    """Write a failure down once per cause, and count it."""
    component = logger.name.rpartition(".")[2]
    (FAILURES if failures is None else failures)[component] += 1
    cause = (component, doing, type(error).__name__)
    if cause not in _CAUSES:
        _CAUSES.add(cause)
        logger.error("[TraceML] %s failed", doing, exc_info=error)


class _QuietFileHandler(logging.FileHandler):
    """A file handler that survives a full disk or a folder that is gone: there is no better place left to complain."""

    def __init__(self, path: Path, **options: object) -> None:
        super().__init__(path, **options)  # type: ignore[arg-type]
        self.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        FAILURES["error_log"] += 1
