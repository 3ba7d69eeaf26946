"""The socket of a run's own dashboard: bound by its owner, so that its address is known before anything serves it."""

from __future__ import annotations

import secrets
from urllib.parse import quote

from traceml_core.core.extras import DASHBOARD, what_is_missing
from traceml_core.core.run_folder import RunFolder
from traceml_core.core.settings import Settings
from traceml_core.transport.listener import open_listener


class DashboardSocket:
    """A listening socket on loopback, and the token without which nobody sees anything there."""

    def __init__(self, folder: RunFolder) -> None:
        """Listen, for the run in `folder`.

        Raises:
            OSError: no port can be had.
        """
        self.token = secrets.token_urlsafe(24)
        self.listener = open_listener()
        host, port = self.listener.getsockname()[:2]
        self.address = f"http://{host}:{port}/runs/{quote(folder.path.name, safe='')}?token={self.token}"


def dashboard_socket(folder: RunFolder, settings: Settings) -> tuple[DashboardSocket | None, str | None]:
    """The socket where the mode asks for it, and what a person is to be told: its address, or why there is none."""
    if settings.mode != "dashboard":
        return None, None
    missing = what_is_missing(DASHBOARD)
    if missing is not None:
        return None, f"no dashboard is shown: {missing}"
    try:
        opened = DashboardSocket(folder)
    except OSError as error:
        return None, f"no dashboard is shown: no port can be had ({error.strerror or error})"
    return opened, f"dashboard at {opened.address}"
