"""The session that records: it opens the run on rank 0, joins it on the others, and ends it with the report."""

from __future__ import annotations

import os
import threading
import time
from time import perf_counter_ns
from typing import Any

import msgspec

from traceml_core.core.identity import RankIdentity
from traceml_core.core.phases import Phase
from traceml_core.core.run_folder import RunFolder
from traceml_core.core.settings import ReportStyle, Settings
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_core.loggers.error_log import FAILURES, close_error_log, fail_open, get_error_logger
from traceml_core.runtime.console import report_style, run_was_opened, say, show, shown, terminal
from traceml_core.runtime.lifecycle import AggregatorHandle, RuntimeHandle, start_aggregator, start_runtime
from traceml_core.runtime.overhead import overhead_ns_per_step
from traceml_core.runtime.rendezvous import FindTicket, Rendezvous, Store, ticket_fetcher, ticket_publisher
from traceml_core.runtime.run_guard import RunGuard
from traceml_core.runtime.run_opening import claim_run_folder
from traceml_core.runtime.session_base import Session
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import Finish, RunError, RunStatus, Verdict

# Up to 100,000 rank-steps the report is there within the first of these. Where it is not (a long run, a machine with
# more work than cores), a person is told and training waits until the second.
REPORT_WAIT_S = 1.5
REPORT_LIMIT_S = 4.5
CLOSE_LIMIT_S = 4.9
MESSAGE_LIMIT = 2_000
logger = get_error_logger("Session")


class LiveSession(Session):
    """A session with a runtime behind it."""

    enabled = True

    def __init__(self, settings: Settings, facts: RunFacts, identity: RankIdentity, started_ns: int) -> None:
        """A session whose runtime is not started yet."""
        super().__init__(started_ns)
        self.steps = _recorder(self.clock, facts)
        self.world_size = identity.world_size
        self._settings = settings
        self._facts = plain_facts(facts)
        self._identity = identity
        self._style: ReportStyle = report_style(settings.report)
        self._folder: RunFolder | None = None
        self._aggregator: AggregatorHandle | None = None
        self._runtime: RuntimeHandle | None = None
        self._guard = RunGuard(self._left_open)
        self._finished = False
        self._closed = False
        self.is_ending = False
        """Whether it waits for its report, on this thread or another."""
        self._pid = os.getpid()

    @property
    def is_open(self) -> bool:
        """Whether another session of this process may join it: it is still measuring, and in this process."""
        return not self._finished and not self._closed and os.getpid() == self._pid

    def start(self, store: Store | None, find_ticket: FindTicket | None = None, watched_pid: int | None = None) -> None:
        """Start what belongs to this rank. With `find_ticket` the run is somebody else's: only this rank's runtime.

        `watched_pid` is the process whose tree is sampled, where it is not this one.

        Raises:
            OSError: rank 0 could not start the aggregator; the other ranks are told.
            RuntimeError: no thread can be started.
        """
        FAILURES.clear()
        rank = self._identity.rank
        if find_ticket is None:
            find_ticket = self._open_or_join(store)
        self._runtime = start_runtime(
            self._identity,
            self._settings,
            self.clock,
            self.steps,
            find_ticket,
            lambda: self._facts,
            started_ns=self.started_ns,
            aggregator=self._aggregator,
            end_joining=lambda: None if rank or store is None else _JOB.withdraw(store),
            watched_pid=watched_pid,
        )
        self._guard.arm()
        run_was_opened()

    def describe(self, **facts: Any) -> None:
        """Fill or replace fields of `RunFacts`, at any time; rank 0's facts are the run's."""
        with fail_open(logger, "describing the run"):
            changed = plain_facts(self._facts, **facts)
            if changed != self._facts:
                self._facts = changed
                if self._runtime is not None and self._identity.rank == 0:
                    self._runtime.describe(changed)

    def learn(self, others: RunFacts) -> None:
        """Take over what a session that joins knows of the run and this one does not."""
        with fail_open(logger, "learning of the run"):
            self.describe(**_news(self._facts, plain_facts(others)))

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
            undo, self.on_end = self.on_end, None  # it holds the adapter's models: no longer than they are trained
            with fail_open(logger, "undoing what the adapter did"):
                if undo is not None:
                    undo()
            self.is_ending = True
            try:
                with fail_open(logger, "finishing the run"):
                    self._end(runtime, status, error)
            finally:
                self.is_ending = False
        return None if runtime.report is None else runtime.report.verdict

    def close(self, status: RunStatus = "completed", error: BaseException | RunError | None = None) -> None:
        """`finish`, print the card to stderr (global rank 0), stop everything that this session started."""
        if self._closed or os.getpid() != self._pid:
            return
        until_s = time.monotonic() + CLOSE_LIMIT_S
        self.finish(status, error)
        self._closed = True
        with fail_open(logger, "closing the run"):
            self._guard.disarm()
            self._print_card()
        with fail_open(logger, "stopping the runtime"):
            self.stop(until_s - time.monotonic())

    def stop(self, timeout_s: float = CLOSE_LIMIT_S) -> None:
        """Stop what this session started, without a word, within `timeout_s`."""
        self._closed = True
        self._guard.disarm()
        until_s = time.monotonic() + timeout_s
        if self._runtime is not None:
            self._runtime.stop(timeout_s)
        if self._aggregator is not None:
            # With the report the aggregator has written its last: there is nothing to wait for but a port of the user's
            # choice, which the next run may need.
            has_report = self._runtime is not None and self._runtime.report is not None
            is_awaited = not has_report or self._settings.port != 0
            self._aggregator.stop(max(until_s - time.monotonic(), 0.0) if is_awaited else 0.0)
        close_error_log()

    def _open_or_join(self, store: Store | None) -> FindTicket:
        """Open this job's next run on rank 0; how this rank comes to its ticket."""
        if self._identity.rank:
            return ticket_fetcher(_JOB, store, self._identity.rank)
        try:
            aggregator = self._start_aggregator()
        except OSError:
            no_run = ticket_publisher(_JOB, store, None)  # on a thread of its own: the store may not answer
            threading.Thread(target=no_run, args=(threading.Event(),), daemon=True).start()
            raise
        return ticket_publisher(_JOB, store, aggregator.ticket)

    def _start_aggregator(self) -> AggregatorHandle:
        folder = claim_run_folder(self._settings)
        self._folder = folder
        self.folder = folder.path
        self._aggregator = start_aggregator(folder, self._settings, nodes=self._identity.nodes)
        notice = self._aggregator.dashboard_notice
        if self._style != "off" or notice is not None:
            recording = folder.notice or f"recording to {shown(folder.path)}"
            say(recording if notice is None else f"{recording}; {notice}")
        return self._aggregator

    def _end(self, runtime: RuntimeHandle, status: RunStatus, error: BaseException | RunError | None) -> None:
        self.clock.unwind()
        self.steps.finish()
        wall_ns, ended_ns = perf_counter_ns() - self.started_ns, time.monotonic_ns()
        overhead_ns = overhead_ns_per_step(self.clock, self.steps)
        look = terminal()
        runtime.finish(
            Finish(
                self._identity.rank,
                self._identity.incarnation,
                status,
                self._told_error(error),
                wall_ns,
                overhead_ns,
                self._aggregator is not None,
                self._style,
                look.columns,
                look.color,
                None if self._aggregator is None else ended_ns,
            )
        )
        if self._aggregator is not None:
            self._aggregator.wake()
        if not runtime.wait(REPORT_WAIT_S) and runtime.has_ticket:
            if self._style != "off" and self._aggregator is not None:
                say("the report takes longer than usual; waiting a few seconds more")
            runtime.wait(REPORT_LIMIT_S - REPORT_WAIT_S)

    def _told_error(self, error: BaseException | RunError | None) -> RunError | None:
        if error is None or isinstance(error, RunError):
            return error
        message = _message_of(error) if self._settings.record_errors else None
        steps = self.steps
        return RunError(type(error).__name__, message, steps.steps_done, steps.step)

    def _print_card(self) -> None:
        if self._runtime is None:
            return
        if self._aggregator is None or self._folder is None:
            if lost := self._runtime.rows_unstored:
                say(f"rank {self._identity.rank}: {lost} rows could not be stored and are missing from the report")
            return
        report, folder = self._runtime.report, shown(self._folder.path)
        if report is not None:
            if report.card:
                show(report.card)
            if self._runtime.rows_unstored:
                lost = self._runtime.rows_unstored
                say(f"{lost} rows could not be stored and are missing above; {folder}/errors.log says why")
        elif not self._aggregator.has_given_up:  # else it has been said
            say(f"no report was made in time; `traceml report {folder}` makes it")

    def _left_open(self, error: BaseException | None) -> None:
        if error is None:
            self.close(self.status_at_exit)
        else:
            self.close("interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "failed", error)


class JoinedSession(Session):
    """A session that joined the one that is open in this process: it measures into it, and leaves it running."""

    enabled = True

    def __init__(self, first: LiveSession, facts: RunFacts) -> None:
        """Join `first`, and tell it what it does not know of the run: that it trains with Lightning, say, on a GPU."""
        self._first = first
        self.started_ns = first.started_ns
        self.clock = first.clock
        self.steps = first.steps
        self.world_size = first.world_size
        self.folder = first.folder
        self.status_at_exit = "interrupted"
        self.on_end = None
        first.learn(facts)

    def describe(self, **facts: Any) -> None:
        """Tell the first session."""
        self._first.describe(**facts)

    def close(self, status: RunStatus = "completed", error: BaseException | RunError | None = None) -> None:
        """What follows is no longer this one's teardown; the run goes on."""
        self.clock.leave(Phase.TEARDOWN)

    def live_verdict(self) -> Verdict | None:
        """The first session's."""
        return self._first.live_verdict()


def _message_of(error: BaseException) -> str | None:
    """What an error says, as text that can be stored; null where its own `__str__` fails."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - somebody else's code; Python's traceback says so as well
        return None
    return text[:MESSAGE_LIMIT].encode("utf-8", "backslashreplace").decode()


def plain_facts(facts: RunFacts, **changes: Any) -> RunFacts:
    """`facts` with `changes`, as plain values: frameworks hand over versions and devices of types of their own.

    Raises:
        msgspec.ValidationError: a change is no fact of that name and type.
    """
    told = {**msgspec.structs.asdict(facts), **changes}
    return msgspec.convert(msgspec.to_builtins(told, enc_hook=str), RunFacts, strict=False)


def _news(known: RunFacts, others: RunFacts) -> dict[str, Any]:
    """Fields of `others` that `known` lacks. A phase is unmeasured where neither of the two measures it."""
    lacking = {name: getattr(others, name) for name in RunFacts.__struct_fields__ if getattr(known, name) is None}
    unmeasured = tuple(phase for phase in known.unmeasured if phase in others.unmeasured)
    return {**lacking, "versions": {**others.versions, **known.versions}, "unmeasured": unmeasured}


def _recorder(clock: PhaseClock, facts: RunFacts) -> StepRecorder:
    if str(facts.device) != "cuda":
        return StepRecorder(clock)
    with fail_open(logger, "setting up the device's clock"):
        from traceml_core.instrumentation.device_timeline import cuda_timeline
        from traceml_core.instrumentation.step_memory import cuda_step_memory

        return StepRecorder(clock, device=cuda_timeline(), memory=cuda_step_memory())
    return StepRecorder(clock)


_JOB = Rendezvous()
