"""One run of one training process, as an adapter sees it: open, describe, finish, close.

This is the only thing of the runtime that adapters and the sdk touch.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import msgspec
import psutil

from traceml_core.core.identity import RankIdentity
from traceml_core.core.run_folder import Manifest, Owner, RunFolder, create_run_folder, write_manifest
from traceml_core.core.settings import ReportStyle, Settings
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_core.loggers.error_log import close_error_log, fail_open, get_error_logger, open_error_log
from traceml_core.runtime.lifecycle import AggregatorHandle, RuntimeHandle, say, start_aggregator, start_runtime
from traceml_core.runtime.overhead import overhead_ns_per_step
from traceml_core.runtime.rendezvous import Store, fetch_ticket, publish_ticket
from traceml_core.runtime.run_guard import RunGuard
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import Finish, RunError, RunStatus, Verdict
from traceml_core.transport.keys import Ticket

REPORT_WAIT_S = 1.5
REPORT_LIMIT_S = 5.0
MESSAGE_LIMIT = 2_000
logger = get_error_logger("Session")


class Session:
    """An open run of this process. Every method is safe to call more than once, and none raises into training.

    `clock` and `steps` are the measuring side, for the training thread alone. This base class is the disabled session:
    its clock and recorder work as always, and what they measure goes nowhere.
    """

    enabled = False
    folder: Path | None = None

    def __init__(self, started_ns: int | None = None) -> None:
        """Measure from `started_ns` (perf_counter) on."""
        self.started_ns = perf_counter_ns() if started_ns is None else started_ns
        self.clock = PhaseClock(started_ns=self.started_ns)
        self.steps = StepRecorder(self.clock, started_ns=self.started_ns, queue_limit=0)
        self.status_at_exit: RunStatus = "interrupted"
        self.on_end: Callable[[], None] | None = None  # what an adapter has to undo, whoever ends the run

    def describe(self, **facts: Any) -> None:
        """Fill or replace fields of `RunFacts`, at any time; rank 0's facts are the run's."""

    def live_verdict(self) -> Verdict | None:
        """The newest live verdict (global rank 0; else None). Costs an attribute read."""
        return None

    def finish(self, status: RunStatus = "completed", error: BaseException | RunError | None = None) -> Verdict | None:
        """End the measuring: flush rows, ask for the report; the final verdict on global rank 0, else None.

        Returns within 5 s whatever the aggregator does. The first call counts.
        """
        return None

    def close(self, status: RunStatus = "completed", error: BaseException | RunError | None = None) -> None:
        """`finish`, print the card to stderr (global rank 0), stop everything that this session started."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        """A copy does not share a run: it is a disabled session."""
        return Session()

    def __reduce__(self) -> tuple[type[Session], tuple[()]]:
        """A pickled session comes back disabled: a run belongs to the process that opened it."""
        return (Session, ())


class JoinedSession(Session):
    """A session that joined the one that is open in this process: it measures into it, and leaves it running."""

    enabled = True

    def __init__(self, first: LiveSession) -> None:
        """Join `first`."""
        self._first = first
        self.started_ns = first.started_ns
        self.clock = first.clock
        self.steps = first.steps
        self.folder = first.folder
        self.status_at_exit = "interrupted"
        self.on_end = None

    def describe(self, **facts: Any) -> None:
        """Tell the first session."""
        self._first.describe(**facts)

    def live_verdict(self) -> Verdict | None:
        """The first session's."""
        return self._first.live_verdict()


class LiveSession(Session):
    """A session with a runtime behind it."""

    enabled = True

    def __init__(self, settings: Settings, facts: RunFacts, identity: RankIdentity, started_ns: int) -> None:
        """A session whose runtime is not started yet."""
        super().__init__(started_ns)
        self.steps = _recorder(self.clock, facts, started_ns)
        self._settings = settings
        self._facts = facts
        self._identity = identity
        self._style = _style(settings)
        self._folder: RunFolder | None = None
        self._aggregator: AggregatorHandle | None = None
        self._runtime: RuntimeHandle | None = None
        self._guard = RunGuard(self._left_open)
        self._finished = False
        self._closed = False
        self._pid = os.getpid()

    def start(self, store: Store | None) -> None:
        """Start what belongs to this rank.

        Raises:
            OSError: the aggregator could not be started.
        """
        number = next(_RUN_NUMBERS)
        if self._identity.rank == 0:
            self._start_aggregator()
            if store is not None and self._aggregator is not None:
                publish_ticket(store, number, self._aggregator.ticket)
        self._runtime = start_runtime(
            self._identity,
            self._settings,
            self.clock,
            self.steps,
            self._ticket_finder(store, number),
            lambda: self._facts,
            started_ns=self.started_ns,
            aggregator=self._aggregator,
        )
        self._guard.arm()

    def describe(self, **facts: Any) -> None:
        """Fill or replace fields of `RunFacts`, at any time; rank 0's facts are the run's."""
        with fail_open(logger, "describing the run"):
            changed = msgspec.convert(msgspec.structs.asdict(self._facts) | facts, RunFacts)
            if changed != self._facts:
                self._facts = changed
                if self._runtime is not None and self._identity.rank == 0:
                    self._runtime.describe(changed)

    def live_verdict(self) -> Verdict | None:
        """The newest live verdict (global rank 0; else None). Costs an attribute read."""
        return None if self._runtime is None else self._runtime.verdict

    def finish(self, status: RunStatus = "completed", error: BaseException | RunError | None = None) -> Verdict | None:
        """End the measuring: flush rows, ask for the report; the final verdict on global rank 0, else None.

        Returns within 5 s whatever the aggregator does. The first call counts.
        """
        runtime = self._runtime
        if runtime is None or os.getpid() != self._pid:
            return None
        if not self._finished:
            self._finished = True
            with fail_open(logger, "undoing what the adapter did"):
                if self.on_end is not None:
                    self.on_end()
            with fail_open(logger, "finishing the run"):
                self._end(runtime, status, error)
        return None if runtime.report is None else runtime.report.verdict

    def close(self, status: RunStatus = "completed", error: BaseException | RunError | None = None) -> None:
        """`finish`, print the card to stderr (global rank 0), stop everything that this session started."""
        if self._closed or os.getpid() != self._pid:
            return
        self.finish(status, error)
        self._closed = True
        with fail_open(logger, "closing the run"):
            self._guard.disarm()
            self._print_card()
        with fail_open(logger, "stopping the runtime"):
            self.stop()

    def is_ours(self) -> bool:
        """Whether it was opened by this process, and not by the parent that forked it."""
        return os.getpid() == self._pid

    def stop(self) -> None:
        """Stop what this session started, without a word."""
        self._closed = True
        self._guard.disarm()
        if self in _OPEN:
            _OPEN.remove(self)
        if self._runtime is not None:
            self._runtime.stop(1.0)
        if self._aggregator is not None:
            self._aggregator.stop(REPORT_LIMIT_S - REPORT_WAIT_S)
        close_error_log()

    def _start_aggregator(self) -> None:
        folder = create_run_folder(self._settings)
        if folder is None:
            raise OSError("neither the run folder nor the temporary folder can be written")
        self._folder = folder
        self.folder = folder.path
        open_error_log(folder.errors_log)
        write_manifest(folder, _manifest(folder, self._settings))
        self._aggregator = start_aggregator(folder, self._settings, nodes=self._identity.nodes)
        if self._style != "off":
            say(folder.notice or f"recording to {_shown(folder.path)}")

    def _ticket_finder(self, store: Store | None, number: int) -> Callable[[threading.Event], Ticket | None]:
        if self._aggregator is not None:
            ticket = self._aggregator.ticket
            return lambda _: ticket
        if store is None:
            return lambda _: None

        def find(stopped: threading.Event) -> Ticket | None:
            found = fetch_ticket(store, number, stopped)
            if found is None and not stopped.is_set():
                say(f"rank {self._identity.rank} found no run to join, and is not recorded")
            return found

        return find

    def _end(self, runtime: RuntimeHandle, status: RunStatus, error: BaseException | RunError | None) -> None:
        self.clock.unwind()
        self.steps.finish()
        wall_ns = perf_counter_ns() - self.started_ns
        told = self._told_error(error)
        columns, color = _terminal()

        def message() -> Finish:
            return Finish(
                self._identity.rank,
                self._identity.incarnation,
                status,
                told,
                wall_ns,
                overhead_ns_per_step(self.clock, self.steps.steps_done, runtime.cpu_ns),
                self._identity.rank == 0,
                self._style,
                columns,
                color,
            )

        runtime.finish(message)
        if runtime.wait(REPORT_WAIT_S):
            return
        if self._identity.rank == 0 and self._style != "off":
            say("the report takes longer than usual; waiting a few seconds more")
        runtime.wait(REPORT_LIMIT_S - REPORT_WAIT_S - 0.5)

    def _told_error(self, error: BaseException | RunError | None) -> RunError | None:
        if error is None or isinstance(error, RunError):
            return error
        message = str(error)[:MESSAGE_LIMIT] if self._settings.record_errors else None
        steps = self.steps
        return RunError(type(error).__name__, message, steps.steps_done, steps.step)

    def _print_card(self) -> None:
        if self._identity.rank != 0 or self._runtime is None or self._folder is None:
            return
        report = self._runtime.report
        if report is None:
            say(f"no report was made in time; `traceml report {_shown(self._folder.path)}` makes it")
        elif report.card:
            print(report.card, file=sys.stderr, flush=True)

    def _left_open(self, error: BaseException | None) -> None:
        if error is None:
            self.close(self.status_at_exit)
        else:
            self.close("interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "failed", error)


def open_session(
    settings: Settings,
    facts: RunFacts,
    identity: RankIdentity | None = None,
    *,
    started_ns: int | None = None,
    store: Store | None = None,
) -> Session:
    """Open a run, or join the one that is open in this process. Never raises: what cannot be started is said and off.

    Args:
        settings: the callback's settings; `enabled=False` gives a disabled session.
        facts: what the adapter knows of the run now.
        identity: this rank as the framework names it; by default the only one.
        started_ns: `perf_counter_ns` at the first framework hook; the clock starts there, in phase `startup`.
        store: the job's rendezvous store, where there are several ranks.
    """
    if not settings.enabled:
        return Session(started_ns)
    if sys.platform == "win32":
        say("Windows is not supported; nothing is recorded")
        return Session(started_ns)
    if _OPEN and _OPEN[-1].is_ours():
        return JoinedSession(_OPEN[-1])
    session = LiveSession(
        settings, facts, identity or RankIdentity(), perf_counter_ns() if started_ns is None else started_ns
    )
    try:
        session.start(store)
    except Exception as error:  # noqa: BLE001 - an edge: whatever keeps TraceML from starting must not keep training
        say(f"nothing is recorded: {type(error).__name__}: {error}")
        session.stop()
        return Session(started_ns)
    _OPEN[:] = [session]
    _LIVED.append(True)
    return session


def _recorder(clock: PhaseClock, facts: RunFacts, started_ns: int) -> StepRecorder:
    if facts.device != "cuda":
        return StepRecorder(clock, started_ns=started_ns)
    with fail_open(logger, "setting up the device's clock"):
        from traceml_core.instrumentation.device_timeline import cuda_timeline
        from traceml_core.instrumentation.step_memory import cuda_step_memory

        return StepRecorder(clock, started_ns=started_ns, device=cuda_timeline(clock), memory=cuda_step_memory())
    return StepRecorder(clock, started_ns=started_ns)


def _manifest(folder: RunFolder, settings: Settings) -> Manifest:
    return Manifest(
        run_id=folder.run_id,
        name=folder.name,
        started_at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        labels=settings.labels,
        owner=Owner(host=RankIdentity().host, pid=os.getpid(), created=psutil.Process().create_time()),
    )


def _style(settings: Settings) -> ReportStyle:
    return settings.report or ("line" if _LIVED else "full")


def _terminal() -> tuple[int, bool]:
    """The width of the terminal that stderr is, and whether it shows colour; 80 and no where it is none."""
    if not sys.stderr.isatty():
        return 80, False
    color = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return shutil.get_terminal_size((80, 24)).columns, color


def _shown(path: Path) -> str:
    """A path as a person would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


_RUN_NUMBERS = itertools.count()
_OPEN: list[LiveSession] = []
_LIVED: list[bool] = []
