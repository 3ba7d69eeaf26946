"""The aggregator's process: serves the ranks of one run until its owner is gone, and leaves the report behind.

Nothing heavy is imported here: the first hello is answered before numpy is loaded.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Protocol

import msgspec

from traceml_core.aggregator.background import Background
from traceml_core.aggregator.display_drivers.dashboard import DashboardDriver
from traceml_core.aggregator.display_drivers.selection import driver_for
from traceml_core.aggregator.ingest import Ingest
from traceml_core.aggregator.owner_watch import OwnerWatch, read_line
from traceml_core.aggregator.reports import Reports
from traceml_core.core.run_folder import open_run_folder
from traceml_core.loggers.error_log import fail_open, get_error_logger, open_error_log
from traceml_core.runtime.aggregator_config import AggregatorConfig
from traceml_core.telemetry.messages import Finish, FromAggregator, FromRank, Report, Verdict

IDLE_WAIT_MS = 100
BUSY_WAIT_MS = 2
# The main loop waits for a report this long, where nobody else talks to it: a short run's is done by then.
SHORT_REPORT_S = 0.05
# The main thread waits this long at most for the report thread to let it run.
SWITCH_INTERVAL_S = 0.0001
LIVE_INTERVAL_S = 2.0
# The first live summaries come sooner: what a report needs is then warm when a short run ends.
FIRST_LIVE_INTERVAL_S = 0.25
# A live summary may take this part of one core: a long run's takes longer, so there are fewer of them.
LIVE_SHARE = 0.1
# What failed or was refused reaches the history this often: a killed aggregator loses no more of it.
FAILURES_INTERVAL_S = 2.0
OTHER_RANKS_S = 1.0
# How long nothing is heard once the owner is gone until what was under way has come in, and until the other ranks
# count as gone as well: a rank that lives samples itself once a second.
QUIET_S = 0.5
OTHERS_QUIET_S = 1.5
DRAIN_LIMIT_S = 4.0
REPORT_LIMIT_S = 60.0
LINGER_S = 60.0
MOST_DESCRIPTORS = 65_536

_logger = get_error_logger("aggregator")


class Server(Protocol):
    """The aggregator's end of the wire."""

    def take_refused(self) -> Counter[str]:
        """What was refused since this was last asked, by reason."""
        ...

    def receive(self, timeout_ms: int) -> list[tuple[bytes, FromRank]]:
        """What ranks said, within the time."""
        ...

    def send(self, peer: bytes, message: FromAggregator) -> None:
        """Say something to one of them."""
        ...


class Service:
    """The main loop: receive, store, ack; report when asked to, and when the owner is gone."""

    def __init__(self, server: Server, ingest: Ingest, reports: Reports, owner_is_gone: Callable[[], bool]) -> None:
        """Serve until the owner is gone, or `stop` is called."""
        self._server = server
        self._ingest = ingest
        self._reports = reports
        self._owner_is_gone = owner_is_gone
        self._background = Background()
        self._stopped = False
        self._warm_up: Future[None] | None = None
        self._live: Future[Verdict | None] | None = None
        self._live_due = 0.0
        self._live_interval_s = FIRST_LIVE_INTERVAL_S
        self._live_began = 0.0
        self._live_changes = 0
        self._failures_due = 0.0
        self._final: Future[Report] | None = None
        self._final_began = 0.0
        self._history_is_read = threading.Event()
        self._final_changes = -1
        self._report: Report | None = None
        self._asked_at: float | None = None
        self._ending_at: float | None = None
        self._heard_at = time.monotonic()

    def stop(self) -> None:
        """End as if the owner were gone; safe in a signal handler."""
        self._stopped = True

    def run(self) -> None:
        """Serve until there is nothing left to do."""
        while not self._is_done():
            ends = self._final is not None or self._report is not None or self._ending_at is not None
            messages = self._server.receive(BUSY_WAIT_MS if ends else IDLE_WAIT_MS)
            now = time.monotonic()
            if messages:
                self._heard_at = now
            if not self._is_deaf(now):
                with fail_open(_logger, "storing what ranks said"):
                    self._ingest.take(messages)
            if self._ending_at is None and (self._stopped or self._owner_is_gone()):
                self._ending_at = now
            self._load_reports()
            if now >= self._failures_due:
                self._failures_due = now + FAILURES_INTERVAL_S
                self._keep_failures()
            self._show_live(now)
            self._make_final(now)
            self._answer_requests()
        with fail_open(_logger, "closing the history"):
            self._keep_failures()
            self._ingest.close()
        self._reports.settle()

    def _is_done(self) -> bool:
        now = time.monotonic()
        if self._final is not None:
            return now - self._final_began > REPORT_LIMIT_S
        if self._ending_at is not None:
            return self._is_quiet(now) and self._report is not None and not self._is_stale()
        idle = self._report is not None and not self._ingest.running
        return idle and now - self._heard_at > LINGER_S and now - self._final_began > LINGER_S

    def _is_quiet(self, now: float) -> bool:
        """Whether nothing more is to be expected, once the owner is gone."""
        if self._is_deaf(now):
            return True
        if self._ingest.away:
            return False
        quiet_s = QUIET_S if self._ingest.running <= {0} else OTHERS_QUIET_S
        return not self._ingest.running or now - max(self._heard_at, self._ending_at or now) > quiet_s

    def _is_deaf(self, now: float) -> bool:
        """Whether the last report is due: what comes in later would be acked and in no report."""
        return self._ending_at is not None and now - self._ending_at > DRAIN_LIMIT_S

    def _is_stale(self) -> bool:
        """Whether something came in after the last final report was begun."""
        return self._final_changes != self._ingest.changes

    def _load_reports(self) -> None:
        if self._warm_up is None and self._ingest.changes:
            self._warm_up = self._background.submit(self._reports.warm_up)
            self._live_due = time.monotonic()

    def _show_live(self, now: float) -> None:
        if self._live is not None and self._live.done():
            self._ingest.verdict = self._live.result() or self._ingest.verdict
            self._live = None
            self._live_due = now + max(self._live_interval_s, (now - self._live_began) / LIVE_SHARE)
            self._live_interval_s = min(2 * self._live_interval_s, LIVE_INTERVAL_S)
        ends = self._ending_at is not None or self._final_changes >= 0 or self._ingest.report_requests
        news = self._ingest.changes != self._live_changes
        if self._live is None and news and not ends and now >= self._live_due and self._warm_up is not None:
            self._live_began, self._live_changes = now, self._ingest.changes
            self._live = self._background.submit(self._reports.live)

    def _make_final(self, now: float) -> None:
        """Begin the final report when it is time, and take it when it is done."""
        if self._final is None:
            self._begin_final_if_due(now)
        if self._final is not None:
            if self._history_is_read.is_set():
                self._close_history()
            if self._final.done():
                self._report, self._final = self._final.result(), None

    def _begin_final_if_due(self, now: float) -> None:
        """When it is asked for and the ranks are done, or when the owner is gone."""
        request = next(iter(self._ingest.report_requests.values()), None)
        if self._report is None and request is not None:
            self._asked_at = now if self._asked_at is None else self._asked_at
            others_come = self._ingest.away or (self._ingest.running and now - self._asked_at < OTHER_RANKS_S)
            if others_come and self._ending_at is None:
                return
        elif self._ending_at is None or not self._is_stale() or not self._is_quiet(now):
            return
        self._begin_final(now, request)

    def _begin_final(self, now: float, request: Finish | None) -> None:
        self._keep_failures()
        self._final_began, self._final_changes = now, self._ingest.changes
        status, is_read = self._ingest.ending, self._history_is_read
        is_read.clear()
        asked_at = now if self._asked_at is None else self._asked_at
        self._final = self._background.submit(lambda: self._reports.final(status, request, asked_at, is_read.set))
        if not self._ingest.running and is_read.wait(SHORT_REPORT_S):
            self._close_history()
            wait((self._final,), SHORT_REPORT_S)

    def _answer_requests(self) -> None:
        if self._report is not None and self._ingest.report_requests:
            self._close_history()
            for peer in list(self._ingest.report_requests):
                self._server.send(peer, self._report)
                del self._ingest.report_requests[peer]
            self._reports.settle()

    def _close_history(self) -> None:
        """After its report, nothing of a run is written any more: its owner may tidy the folder away at once."""
        if not self._ingest.running:
            with fail_open(_logger, "closing the history"):
                self._ingest.close(synced=False)

    def _keep_failures(self) -> None:
        refused = self._server.take_refused()
        self._ingest.keep_failures({f"refused.{reason}": count for reason, count in refused.items()})


def main(listening_fd: int, owner_fd: int) -> None:
    """Serve one run. `owner_fd` is a pipe from its owner: first a line of `AggregatorConfig`, then a sign of life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is training's
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    config = msgspec.json.decode(read_line(owner_fd), type=AggregatorConfig)
    open_error_log(Path(config.folder) / "errors.log")
    with fail_open(_logger, "serving the run"):
        _serve(config, listening_fd, owner_fd)


def _allow_many_connections() -> None:
    """As many descriptors as the system allows: every rank is a connection, and strangers must not use them up."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    with fail_open(_logger, "allowing many connections"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _serve(config: AggregatorConfig, listening_fd: int, owner_fd: int) -> None:
    from traceml_core.runtime.sampler_registry import row_types
    from traceml_core.transport.server import TelemetryServer

    _allow_many_connections()
    server = TelemetryServer(
        listening_fd,
        server_public=config.server_public,
        server_secret=config.server_secret,
        client_public=config.client_public,
    )
    try:
        folder = open_run_folder(Path(config.folder))
        ingest = Ingest(folder.history, row_types(), server.send, config.keep_raw_steps)
        dashboard = None if config.dashboard is None else DashboardDriver(folder, *config.dashboard)
        reports = Reports(folder, dashboard or driver_for(config.mode, folder), config.html)
        watch = OwnerWatch(owner_fd, config.owner_pid, config.owner_birth)
        service = Service(server, ingest, reports, watch.is_gone)
        signal.signal(signal.SIGTERM, lambda *_: service.stop())
        service.run()
        if dashboard is not None:
            dashboard.wait()
    finally:
        server.close()
    os._exit(0)  # everything is closed; the interpreter's own tidying would keep the owner waiting
