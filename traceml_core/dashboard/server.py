"""Serves the dashboard on a thread, on a socket that is given to it, until it is told to end."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from traceml_core.dashboard.runs_folder import RunsFolder
from traceml_core.dashboard.shown_runs import ShownRuns

# Open pages hear the last news within this time.
ENDING_S = 1.0


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(24)


def address_of(listener: socket.socket, token: str, run: str | None = None) -> str:
    """The address to open: of the list, or of one run."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    path = "" if run is None else f"runs/{quote(run, safe='')}"
    return f"http://{shown}:{port}/{path}?token={token}"


class DashboardServer:
    """The dashboard of the runs in `root`, on a listening socket, which it owns from now on."""

    def __init__(self, root: Path, listener: socket.socket, token: str, hosts: Iterable[str] = ()) -> None:
        """Prepare to serve whoever has the token; `hosts` are further names of this machine."""
        import uvicorn

        from traceml_core.dashboard.app import dashboard_app

        self._ends_at: float | None = None
        app = dashboard_app(ShownRuns(RunsFolder(root)), token=token, is_ending=self._is_ending, hosts=hosts)
        config = uvicorn.Config(
            app,
            access_log=False,
            lifespan="off",
            log_config=None,
            log_level="critical",
            server_header=False,
            timeout_graceful_shutdown=1,
            ws="none",
        )
        self._server = uvicorn.Server(config)
        self._listener = listener
        self._thread = threading.Thread(target=self._serve, name="traceml-dashboard", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def end(self) -> None:
        """Begin to end: open pages get the last news first. Safe to call more than once, and in a signal handler."""
        if self._ends_at is None:
            self._ends_at = time.monotonic() + ENDING_S
            threading.Thread(target=self._end, name="traceml-dashboard-end", daemon=True).start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended; False where it has not within the time."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _is_ending(self) -> bool:
        return self._ends_at is not None

    def _end(self) -> None:
        """Let go of the server once nobody listens any more, or the time is over."""
        while self._ends_at is not None and time.monotonic() < self._ends_at and self._server.server_state.connections:
            time.sleep(0.02)
        self._server.should_exit = True

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self._listener.close()
