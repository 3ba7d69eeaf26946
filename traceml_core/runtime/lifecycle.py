"""Starting and stopping the two parts of TraceML: the only way to do either, for adapters, the command line and Ray."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from time import perf_counter_ns

import psutil

from traceml_core.core.identity import RankIdentity
from traceml_core.core.run_folder import RunFolder
from traceml_core.core.settings import Settings
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_core.loggers.error_log import get_error_logger
from traceml_core.runtime.aggregator_config import AggregatorConfig
from traceml_core.runtime.forked import let_go_when_forked
from traceml_core.runtime.sampler_registry import samplers_for
from traceml_core.runtime.sender import SampledRows, Sender
from traceml_core.runtime.spawn import AggregatorProcess
from traceml_core.samplers.base import BaseSampler, SamplerContext
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import Finish, Report, Verdict
from traceml_core.transport.keys import Ticket, make_keys, ticket_for
from traceml_core.transport.listener import address_towards, endpoint_of, open_listener

RESTARTS = 5
RESTART_WINDOW_S = 60.0
STOP_LIMIT_S = 5.0
logger = get_error_logger("Lifecycle")


class AggregatorHandle:
    """The owner's hold on its aggregator: it starts it again when it died, and stops it."""

    def __init__(self, folder: RunFolder, settings: Settings, listener: socket.socket) -> None:
        """Start the aggregator of the run in `folder`, listening on `listener`, which the handle owns from now on."""
        keys = make_keys()
        self.ticket: Ticket = ticket_for(keys, endpoint_of(listener), folder.run_id)
        self._folder = folder
        self._listener = listener
        self._config = AggregatorConfig(
            run_id=folder.run_id,
            folder=str(folder.path),
            server_public=keys.server_public,
            server_secret=keys.server_secret,
            client_public=keys.client_public,
            owner_pid=os.getpid(),
            owner_created=psutil.Process().create_time(),
            profile=settings.profile,
            mode=settings.mode,
        )
        self._pid = os.getpid()
        self._stopped = False
        self._restarts: list[float] = []
        let_go_when_forked(self)
        self._process = self._start()

    @property
    def pid(self) -> int:
        """The aggregator's process number."""
        return self._process.pid

    def keep_running(self) -> None:
        """Start the aggregator again where it has died: at most 5 times a minute."""
        if self._stopped or self._process.is_running():
            return
        now = time.monotonic()
        self._restarts = [at for at in self._restarts if now - at < RESTART_WINDOW_S]
        if len(self._restarts) < RESTARTS:
            self._restarts.append(now)
            logger.error("[TraceML] the aggregator ended with the run open; starting it again")
            self._process.close_pipe()
            self._process = self._start()

    def stop(self, timeout_s: float = STOP_LIMIT_S) -> None:
        """Let the aggregator end, and wait for it at most `timeout_s`; then it ends by itself."""
        if self._stopped or os.getpid() != self._pid:
            return
        self._stopped = True
        self._process.close_pipe()
        if not self._process.wait(timeout_s):
            self._process.abandon()
        self._listener.close()

    def let_go(self) -> None:
        """In a forked child: close what was inherited."""
        self._stopped = True
        self._process.close_pipe()
        self._listener.close()

    def _start(self) -> AggregatorProcess:
        return AggregatorProcess(self._config, self._listener, self._folder.errors_log)


class RuntimeHandle:
    """The telemetry of this process: its sender, fed by one clock and one recorder."""

    def __init__(self, clock: PhaseClock, steps: StepRecorder, sender: Sender) -> None:
        """Own a sender that has been started."""
        self.clock = clock
        self.steps = steps
        self._sender = sender
        self._pid = os.getpid()

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
    def cpu_ns(self) -> int:
        """CPU nanoseconds that the sender thread has used."""
        return self._sender.cpu_ns

    def describe(self, facts: RunFacts) -> None:
        """Tell the aggregator what is known of the run."""
        self._sender.describe(facts)

    def finish(self, finish: Callable[[], Finish]) -> None:
        """Begin to send what is left, then `finish`'s message; does not wait."""
        if os.getpid() == self._pid:
            self._sender.finish(finish)

    def wait(self, timeout_s: float) -> bool:
        """Wait until `finish` is answered; False where it is not within `timeout_s`."""
        return os.getpid() != self._pid or self._sender.finished.wait(timeout_s)

    def stop(self, timeout_s: float = STOP_LIMIT_S) -> None:
        """End the sender. Safe to call more than once, and in a forked child."""
        if os.getpid() == self._pid:
            self._sender.stop(timeout_s)


def start_aggregator(folder: RunFolder, settings: Settings, *, nodes: int = 1) -> AggregatorHandle:
    """Start the aggregator of the run in `folder`. Nothing waits for it; `stop` of the handle ends it.

    Raises:
        OSError: the port is taken, or a process cannot be started.
    """
    listener = open_listener(_listening_address(nodes), settings.port)
    try:
        return AggregatorHandle(folder, settings, listener)
    except OSError:
        listener.close()
        raise


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
) -> RuntimeHandle:
    """Start this process's telemetry. `find_ticket` is called on the sender's thread; `started_ns` is perf_counter."""
    context = SamplerContext(
        identity=identity,
        clock=clock,
        steps=steps,
        watched_pid=os.getpid(),
        device=lambda: facts().device,
        unmeasured=lambda: frozenset(facts().unmeasured),
        aggregator_pid=lambda: None if aggregator is None else aggregator.pid,
    )
    sender = Sender(
        identity,
        find_ticket,
        make_rows=lambda: SampledRows(_build_samplers(settings, context)),
        rows_dropped=lambda: steps.dropped,
        elapsed_ns=lambda: perf_counter_ns() - started_ns,
        keep_aggregator=(lambda: None) if aggregator is None else aggregator.keep_running,
    )
    handle = RuntimeHandle(clock, steps, sender)
    sender.describe(facts())
    sender.start()
    return handle


def _build_samplers(settings: Settings, context: SamplerContext) -> list[tuple[BaseSampler, float]]:
    return [
        (spec.build(context), settings.sample_interval_s if spec.interval_s is None else spec.interval_s)
        for spec in samplers_for(settings.profile, settings.mode)
    ]


def _listening_address(nodes: int) -> str:
    """Loopback, or with several nodes the address that reaches the job's master."""
    master = os.environ.get("MASTER_ADDR")
    if nodes <= 1 or not master:
        return "127.0.0.1"
    return address_towards(master, int(os.environ.get("MASTER_PORT", "1")))


def say(message: str) -> None:
    """Say one line to the person who trains, on stderr."""
    print(f"TraceML: {message}", file=sys.stderr, flush=True)
