"""`traceml dashboard`: a local web page that lists runs and shows them, live or finished, until Ctrl-C."""

from __future__ import annotations

import ipaddress
import signal
import socket
import threading
from pathlib import Path

import click

from traceml_core.cli.failure import CommandError
from traceml_core.cli.printing import print_line
from traceml_core.cli.runs_dir_option import runs_dir_option

LAST_WAIT_S = 4.0


@click.command()
@click.argument("run", required=False)
@runs_dir_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; others can then reach it.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port; any free one where none is given.")
def dashboard(run: str | None, runs_dir: str, host: str, port: int) -> None:
    """Show runs on a local web page: all of them, or RUN.

    It follows those that go on. The address that is printed carries a token; without it nobody sees anything. Ctrl-C
    ends the page.

    \b
    Examples: traceml dashboard
              traceml dashboard --port 8080
    """
    from traceml_core.core.extras import DASHBOARD, what_is_missing

    missing = what_is_missing(DASHBOARD)
    if missing is not None:
        raise CommandError(f"the dashboard cannot be shown: {missing}")
    root, name = _place(run, runs_dir)
    _serve(root, name, host, port)


def _place(run: str | None, runs_dir: str) -> tuple[Path, str | None]:
    """The runs folder, and the run in it that is to be shown first."""
    from traceml_core.core.run_folder import RunLookupError, find_run
    from traceml_core.reporting.stored_summary import SummaryUnavailableError, check_readable

    if run is None:
        if not Path(runs_dir).is_dir():
            raise CommandError(
                f"there is no folder {runs_dir}; train with a TraceMLCallback, or name another --runs-dir"
            )
        return Path(runs_dir), None
    try:
        folder = find_run(run, runs_dir).resolve()
        check_readable(folder)
    except (RunLookupError, SummaryUnavailableError) as error:
        raise CommandError(str(error)) from error
    return folder.parent, folder.name


def _serve(root: Path, name: str | None, host: str, port: int) -> None:
    from traceml_core.dashboard.server import DashboardServer, address_of, new_token

    listener = _listener(host, port)
    token = new_token()
    address = address_of(listener, token, name)
    server = DashboardServer(root, listener, token, hosts=[host, listener.getsockname()[0]])
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    server.start()
    print_line(f"TraceML shows {root} at\n\n    {address}\n\nCtrl-C ends it.")
    while not ended.wait(1.0) and not server.wait(0.0):
        pass
    server.end()
    server.wait(LAST_WAIT_S)


def _listener(host: str, port: int) -> socket.socket:
    """Listens where it was asked for, if that is one address."""
    from traceml_core.transport.listener import open_listener

    try:
        listener = open_listener(host, port)
    except (OSError, TypeError, UnicodeError) as error:  # the last two: no name of a machine at all
        reason = getattr(error, "strerror", None) or error
        raise CommandError(f"{host}:{port} cannot be had ({reason}); name another --host or --port") from error
    address = ipaddress.ip_address(listener.getsockname()[0])
    if (getattr(address, "ipv4_mapped", None) or address).is_unspecified:
        listener.close()
        raise CommandError(f"--host {host} is every address at once; name the one by which others reach this machine")
    return listener
