"""Starting and stopping the two parts of TraceML: the only way to do either, for adapters, the command line and Ray."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from time import perf_counter_ns

from traceml_core.core.identity import RankIdentity
from traceml_core.core.process_birth import birth_of
from traceml_core.core.run_folder import RunFolder
from traceml_core.core.settings import Settings
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.aggregator_config import AggregatorConfig
from traceml_core.runtime.console import say, say_in_passing, shown
from traceml_core.runtime.dashboard_socket import dashboard_socket
from traceml_core.runtime.forked import let_go_when_forked
from traceml_core.runtime.sampler_registry import samplers_for
from traceml_core.runtime.sender import SampledRows, Sender
from traceml_core.runtime.spawn import AggregatorProcess
from traceml_core.samplers.base import BaseSampler, SamplerContext
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import Finish, Report, Verdict
from traceml_core.transport.keys import Ticket, make_keys, ticket_for
from traceml_core.transport.listener import LOOPBACK, address_in_job, endpoint_of, open_listener

RESTARTS = 5
RESTART_WINDOW_S = 60.0
STOP_LIMIT_S = 5.0
KEEP_INTERVAL_S = 0.1
logger = get_error_logger("Lifecycle")


class AggregatorHandle:
    """The owner's hold on its aggregator: it starts it again when it died, and stops it."""

    def __init__(self, folder: RunFolder, settings: Settings, listener: socket.socket, *, apart: bool = False) -> None:
        """Start the aggregator of the run in `folder`, listening on `listener`, which the handle owns from now on.

        `apart`: see `start_aggregator`.

        Raises:
            OSError: a process cannot be started.
        """
        keys = make_keys()
        self.ticket: Ticket = ticket_for(keys, endpoint_of(listener), folder.run_id)
        self.has_given_up = False
        self._folder = folder
        self._listener = listener
        self._dashboard, self.dashboard_notice = dashboard_socket(folder, settings)
        self._config = AggregatorConfig(
            run_id=folder.run_id,
            folder=str(folder.path),
            server_public=keys.server_public,
            server_secret=keys.server_secret,
            client_public=keys.client_public,
            owner_pid=os.getpid(),
            owner_birth=birth_of(os.getpid()),
            mode=settings.mode,
            keep_raw_steps=settings.keep_raw_steps,
            html=settings.html,
            dashboard=None if self._dashboard is None else (self._dashboard.listener.fileno(), self._dashboard.token),
        )
        self._pid = os.getpid()
        self._stopped = False
        self._restarts: list[float] = []
        self._apart = apart
        self._ending = threading.Event()
        self._keeper: threading.Thread | None = None
        self._process = self._start()
        let_go_when_forked(self)

    @property
    def pid(self) -> int:
        """The aggregator's process number."""
        return self._process.pid

    def keep_running(self) -> bool:
        """Start the aggregator again where it has died; False once that is hopeless.

        After 5 times within a minute it gives up, and says so.
        """
        if self.has_given_up:
            return False
        if self._stopped or self._process.is_running():
            return True
        now = time.monotonic()
        self._restarts = [at for at in self._restarts if now - at < RESTART_WINDOW_S]
        if len(self._restarts) >= RESTARTS:
            self._give_up()
            return False
        self._restarts.append(now)
        logger.error(
            "[TraceML] the aggregator ended with the run open, exit status %s; starting it again",
            self._process.exit_status(),
        )
        self._process.close_pipe()
        with fail_open(logger, "starting the aggregator again"):
            self._process = self._start()
        return True

    def keep_by_thread(self) -> None:
        """Keep it running from now on, on a thread, for an owner that has no runtime whose sender does it.

        Raises:
            RuntimeError: no thread can be started.
        """
        self._keeper = threading.Thread(target=self._keep, name="traceml-keeper", daemon=True)
        self._keeper.start()

    def wake(self) -> None:
        """Have the aggregator go on where somebody has stopped it (SIGSTOP)."""
        self._process.wake()

    def stop(self, timeout_s: float = STOP_LIMIT_S) -> None:
        """Let the aggregator end, and wait for it at most `timeout_s`; then it ends by itself.

        Safe to call more than once, and in a forked child, where it does nothing.
        """
        if self._stopped or os.getpid() != self._pid:
            return
        self._stopped = True
        self._ending.set()
        until_s = time.monotonic() + min(timeout_s, STOP_LIMIT_S)
        if self._keeper is not None:  # it may be starting the aggregator again, and that one must be told to end
            self._keeper.join(min(timeout_s, STOP_LIMIT_S))
        self._process.close_pipe()
        if not self._process.wait(max(until_s - time.monotonic(), 0.0)):
            self._process.abandon()
        self._close_sockets()

    def let_go(self) -> None:
        """In a forked child: close what was inherited."""
        self._stopped = True
        self._process.close_pipe()
        self._close_sockets()

    def _close_sockets(self) -> None:
        self._listener.close()
        if self._dashboard is not None:
            self._dashboard.listener.close()

    def _keep(self) -> None:
        while not self._ending.wait(KEEP_INTERVAL_S) and self.keep_running():
            pass

    def _give_up(self) -> None:
        self.has_given_up = True
        folder = shown(self._folder.path)
        say(f"its recording process ended {RESTARTS + 1} times; nothing more is recorded. {folder}/errors.log says why")

    def _start(self) -> AggregatorProcess:
        sockets = [self._listener] if self._dashboard is None else [self._listener, self._dashboard.listener]
        return AggregatorProcess(self._config, sockets, self._folder.errors_log, apart=self._apart)


class RuntimeHandle:
    """The telemetry of this process: its sender, fed by one clock and one recorder."""

    def __init__(self, clock: PhaseClock, steps: StepRecorder, sender: Sender) -> None:
        """Own a sender that has been started."""
        self.clock = clock
        self.steps = steps
        self.is_stopped = False
        self.is_finishing = False
        self._sender = sender
        self._pid = os.getpid()

    @property
    def is_ours(self) -> bool:
        """Whether this process started it, and not the parent that forked it."""
        return os.getpid() == self._pid

    @property
    def verdict(self) -> Verdict | None:
        """The newest live verdict."""
        return self._sender.verdict

    @property
    def report(self) -> Report | None:
        """The aggregator's answer to `finish`, once it is there."""
        return self._sender.report

    @property
    def has_ticket(self) -> bool | None:
        """Whether this rank has found its run; null while it looks for it."""
        return self._sender.has_ticket

    @property
    def rows_unstored(self) -> int:
        """Rows that were measured and are not stored. After `finish` was answered, they are lost."""
        return self._sender.rows_unstored

    def describe(self, facts: RunFacts) -> None:
        """Tell the aggregator what is known of the run."""
        self._sender.describe(facts)

    def finish(self, finish: Finish) -> None:
        """Begin to send what is left, then `finish`; does not wait."""
        if self.is_ours:
            self.is_finishing = True
            self._sender.finish(finish)

    def wait(self, timeout_s: float) -> bool:
        """Wait until `finish` is answered or that is hopeless; False where it is not within `timeout_s`."""
        return not self.is_ours or self._sender.finished.wait(timeout_s)

    def stop(self, timeout_s: float = STOP_LIMIT_S) -> None:
        """End the sender; what it has not sent is lost. Safe to call more than once, and in a forked child."""
        if self.is_ours and not self.is_stopped:
            self.is_stopped = True
            if self in _RUNNING:
                _RUNNING.remove(self)
            self._sender.stop(min(timeout_s, STOP_LIMIT_S))


class JoinedRuntimeHandle(RuntimeHandle):
    """A second hold on the runtime of this process: it measures into it, and leaves it running."""

    def __init__(self, first: RuntimeHandle) -> None:
        """Join `first`."""
        super().__init__(first.clock, first.steps, first._sender)

    def finish(self, finish: Finish) -> None:
        """Nothing: the run ends when its owner ends it."""

    def wait(self, timeout_s: float) -> bool:
        """Nothing to wait for."""
        return True

    def stop(self, timeout_s: float = STOP_LIMIT_S) -> None:
        """Nothing: who started the runtime stops it."""


def start_aggregator(
    folder: RunFolder, settings: Settings, *, nodes: int = 1, host: str | None = None, apart: bool = False
) -> AggregatorHandle:
    """Start the aggregator of the run in `folder`. Nothing waits for it; `stop` of the handle ends it.

    Args:
        folder: the run's folder.
        settings: the run's settings.
        nodes: how many machines the job runs on.
        host: the address to listen on, where the caller knows it better than `nodes` tells.
        apart: start it as nobody's child, for an owner with whom its children are killed: it would write no report.

    Raises:
        OSError: the port is taken, or a process cannot be started; the message is for a person.
    """
    try:
        listener = open_listener(host or (LOOPBACK if nodes == 1 else address_in_job()), settings.port)
    except OSError as error:
        port = f"port {settings.port}" if settings.port else "a port to listen on"
        raise OSError(f"{port} cannot be had ({error.strerror or error})") from error
    try:
        return AggregatorHandle(folder, settings, listener, apart=apart)
    except OSError as error:
        listener.close()
        raise OSError(f"its recording process cannot be started ({error.strerror or error})") from error


def start_runtime(
    identity: RankIdentity,
    settings: Settings,
    clock: PhaseClock,
    steps: StepRecorder,
    find_ticket: Callable[[threading.Event], Ticket | None],
    facts: Callable[[], RunFacts],
    *,
    started_ns: int,
    aggregator: AggregatorHandle | None = None,
    end_joining: Callable[[], None] = lambda: None,
    watched_pid: int | None = None,
) -> RuntimeHandle:
    """Start this process's telemetry, or join the one that runs in it: then its clock and steps are the handle's.

    One that has been told to finish takes nothing in any more, and is not joined.
    `find_ticket` is called on the sender's thread; it is given an event that is set when the run is about to end, after
    which it must not wait for long. `end_joining` is called there when training is over. `started_ns` is perf_counter's
    at the begin of the run. `watched_pid` is the process whose tree is sampled; null: this one.

    Raises:
        RuntimeError: no thread can be started.
    """
    if _RUNNING and _RUNNING[0].is_ours and not _RUNNING[0].is_finishing:
        return JoinedRuntimeHandle(_RUNNING[0])
    context = SamplerContext(
        identity=identity,
        clock=clock,
        steps=steps,
        watched_pid=os.getpid() if watched_pid is None else watched_pid,
        device=lambda: facts().device,
        sample_interval_s=settings.sample_interval_s,
        unix_ns=steps.unix_ns,
        unmeasured=lambda: frozenset(facts().unmeasured),
        aggregator_pid=lambda: None if aggregator is None else aggregator.pid,
    )
    sender = Sender(
        identity,
        find_ticket,
        make_rows=lambda: SampledRows(_build_samplers(settings, context)),
        rows_dropped=lambda: steps.dropped,
        elapsed_ns=lambda: perf_counter_ns() - started_ns,
        keep_aggregator=(lambda: True) if aggregator is None else aggregator.keep_running,
        tell_silence=lambda: _tell_silence(identity, aggregator),
        end_joining=end_joining,
        tell_line=say_in_passing,
        end_turn=steps.expect_sender,
    )
    handle = RuntimeHandle(clock, steps, sender)
    if identity.rank == 0:
        sender.describe(facts())
    sender.start()
    _RUNNING[:] = [handle]
    return handle


def _build_samplers(settings: Settings, context: SamplerContext) -> list[tuple[BaseSampler, float]]:
    samplers = []
    for spec in samplers_for(settings.profile, settings.mode):
        with fail_open(logger, f"building the sampler {spec.name}"):
            interval_s = settings.sample_interval_s if spec.interval_s is None else spec.interval_s
            samplers.append((spec.build(context), interval_s))
    return samplers


def _tell_silence(identity: RankIdentity, aggregator: AggregatorHandle | None) -> None:
    """The owner knows its aggregator and starts it again; another rank can only say that it hears nothing."""
    if aggregator is None:
        say(f"rank {identity.rank} gets no answer from the run's recording process; it goes on trying")


_RUNNING: list[RuntimeHandle] = []
