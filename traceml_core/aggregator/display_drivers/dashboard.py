"""Mode `dashboard`: the summary so far in its file, and a web page that shows it, in the aggregator's process."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from traceml_core.aggregator.display_drivers.summary import SummaryDriver
from traceml_core.core.run_folder import RunFolder

if TYPE_CHECKING:
    from traceml_core.dashboard.server import DashboardServer
    from traceml_core.reporting.summary import FinalSummary

LAST_WAIT_S = 2.5


class DashboardDriver:
    """Serves from the first summary on, until the final one is in place. The page itself reads the files."""

    def __init__(self, folder: RunFolder, listening_fd: int, token: str) -> None:
        """Show the run in `folder`, and those beside it, on a socket that the run's owner has bound."""
        self._files = SummaryDriver(folder)
        self._folder = folder
        self._listener = socket.socket(fileno=listening_fd)
        self._token = token
        self._server: DashboardServer | None = None

    def show(self, summary: FinalSummary) -> None:
        """Replace the file, and begin to serve it.

        Raises:
            ImportError: the extra is not installed whole.
            OSError: the file could not be written.
        """
        self._files.show(summary)
        if self._server is None:
            from traceml_core.dashboard.server import DashboardServer

            self._server = DashboardServer(self._folder.path.parent, self._listener, self._token)
            self._server.start()

    def close(self) -> None:
        """Delete the file; open pages get the final summary, and the server begins to end."""
        self._files.close()
        if self._server is not None:
            self._server.end()

    def wait(self) -> None:
        """Give open pages the time to get it. Training does not wait for that."""
        if self._server is not None:
            self._server.end()
            self._server.wait(LAST_WAIT_S)
