"""The run guard: closes a run that nobody closed, when the process or a notebook's cell ends with it open."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any

from traceml_core.runtime.own_frames import hide_own_frames


class RunGuard:
    """While armed, calls `on_left_open(error)` once if the run is left open. `error` is null at a plain process end.

    It chains `sys.excepthook` (the one before it speaks first, without frames of ours) and IPython's cell event, and is
    undone when disarmed. A hook that somebody put over ours stays, and ours then only passes on.
    """

    def __init__(self, on_left_open: Callable[[BaseException | None], None]) -> None:
        """A guard that is not armed yet."""
        self._on_left_open: Callable[[BaseException | None], None] | None = on_left_open
        self._armed = False
        self._pid = os.getpid()
        self._previous: Callable[..., Any] = sys.__excepthook__
        self._hook = self._excepthook  # one object, so that it can be told from another one
        self._shell: Any = None
        self._child_end: Finalize | None = None

    def arm(self) -> None:
        """Begin to watch."""
        self._armed = True
        self._previous = sys.excepthook
        sys.excepthook = self._hook
        atexit.register(self._at_exit)
        if multiprocessing.parent_process() is not None:
            self._child_end = Finalize(None, self._at_child_end, exitpriority=0)
        self._shell = _ipython_shell()
        if self._shell is not None:
            self._shell.events.register("post_run_cell", self._after_cell)

    def disarm(self) -> None:
        """Put everything back. Safe to call more than once."""
        if not self._armed:
            return
        self._armed = False
        self._on_left_open = None  # a hook that stays in somebody's chain must not keep the run alive
        if sys.excepthook is self._hook:
            sys.excepthook = self._previous
        atexit.unregister(self._at_exit)
        if self._child_end is not None:
            self._child_end.cancel()
            self._child_end = None
        if self._shell is not None:
            self._shell.events.unregister("post_run_cell", self._after_cell)
            self._shell = None

    def _excepthook(self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        hide_own_frames(error)
        try:
            self._previous(kind, error, error.__traceback__)
        finally:
            self._left_open(error)

    def _at_exit(self) -> None:
        self._left_open(None)

    def _at_child_end(self) -> None:
        """A rank that multiprocessing has forked may end without atexit, and its errors reach no excepthook."""
        error = sys.exc_info()[1]
        if isinstance(error, SystemExit):  # torch's launchers keep the error for the parent, and exit
            error = error.__context__ if error.code else None
        self._left_open(error)

    def _after_cell(self, result: Any) -> None:
        error = getattr(result, "error_in_exec", None)
        if error is not None:
            self._left_open(error)

    def _left_open(self, error: BaseException | None) -> None:
        if self._armed and self._on_left_open is not None and os.getpid() == self._pid:
            self._on_left_open(error)


def _ipython_shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None
