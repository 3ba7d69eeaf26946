"""One run of one training process, as an adapter sees it: open, describe, finish, close.

This is the only thing of the runtime that adapters and the sdk touch.
"""

from __future__ import annotations

import sys
import weakref
from time import perf_counter_ns

from traceml_core.core.identity import RankIdentity
from traceml_core.core.settings import Settings
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.console import say
from traceml_core.runtime.live_session import JoinedSession, LiveSession
from traceml_core.runtime.rendezvous import FindTicket, Store
from traceml_core.runtime.session_base import Session as Session
from traceml_core.telemetry.facts import RunFacts
from traceml_core.telemetry.messages import RunError

CAUGHT = RunError("unknown", "training was left by an exception that was caught, and began again")
logger = get_error_logger("Session")


def open_session(
    settings: Settings,
    facts: RunFacts,
    identity: RankIdentity | None = None,
    *,
    started_ns: int | None = None,
    store: Store | None = None,
    find_ticket: FindTicket | None = None,
    watched_pid: int | None = None,
) -> Session:
    """Open a run, or join the one that is open in this process. Never raises: what cannot be started is said and off.

    Args:
        settings: the callback's settings; `enabled=False` gives a disabled session.
        facts: what the adapter knows of the run now.
        identity: this rank as the framework names it; by default the only one.
        started_ns: `perf_counter_ns` at the first framework hook; the clock starts there, in phase `startup`.
        store: the job's rendezvous store, where there are several ranks.
        find_ticket: how this rank comes to the ticket of a run whose aggregator another process owns (null: to none).
            That process reports; this one starts its runtime alone, on rank 0 too. Called on the sender's thread.
        watched_pid: the process whose tree is sampled, where it is not this one.
    """
    if started_ns is None:
        started_ns = perf_counter_ns()
    if not settings.enabled:
        return Session(started_ns)
    if sys.platform == "win32":
        _say_off_once()
        return Session(started_ns)
    first = _OPEN[0]() if _OPEN else None
    if first is not None:
        if first.is_open:
            return JoinedSession(first, facts)
        if not first.is_ending:
            first.close()  # its training is over, and whoever opened it has not come to this
    session: LiveSession | None = None
    try:
        session = LiveSession(settings, facts, identity or RankIdentity(), started_ns)
        session.start(store, find_ticket, watched_pid)
    except Exception as error:  # noqa: BLE001 - an edge: whatever keeps TraceML from starting must not keep training
        with fail_open(logger, "stopping what was started"):
            if session is not None:
                session.stop()
        say(f"nothing is recorded: {_reason(error)}")
        return Session(started_ns)
    _OPEN[:] = [weakref.ref(session)]
    return session


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"


def _say_off_once() -> None:
    if not _SAID_OFF:
        _SAID_OFF.append(True)
        say("Windows is not supported; nothing is recorded")


# Weak: a run that is over is let go of with whoever opened it.
_OPEN: list[weakref.ref[LiveSession]] = []
_SAID_OFF: list[bool] = []
