"""One worker of Ray Train as a rank of the run: its runtime starts before the user's loop and stops after it."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any

import msgspec
import ray
import ray.train
import ray.train.torch
import torch

from traceml_core.core.identity import RankIdentity
from traceml_core.core.phases import STEP_PHASES, Phase
from traceml_core.core.settings import Settings
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.console import say
from traceml_core.runtime.rendezvous import FETCH_LIMIT_S, FindTicket
from traceml_core.runtime.session import Session, open_session
from traceml_core.sdk.run_ending import status_of
from traceml_core.telemetry.facts import RunFacts
from traceml_core.transport.keys import Ticket

LOOK_INTERVAL_S = 0.05
logger = get_error_logger("RayWorker")


def run_recorded(loop: Callable[..., Any], arguments: Sequence[Any], settings: dict[str, Any], aggregator: Any) -> Any:
    """Call the user's loop with its arguments, recorded; return and raise what it does."""
    session = _open(settings, aggregator)
    try:
        result = loop(*arguments)
    except BaseException as error:
        status = status_of(error)
        session.close(status, None if status == "completed" else error)
        raise
    session.close()
    return result


def _open(settings: dict[str, Any], aggregator: Any) -> Session:
    started_ns = perf_counter_ns()
    with fail_open(logger, "joining the run"):
        identity = _identity()
        return open_session(
            msgspec.convert(settings, Settings),
            _facts(identity.world_size),
            identity,
            started_ns=started_ns,
            find_ticket=_ticket_of(aggregator, identity.rank),
        )
    return Session(started_ns)


def _identity() -> RankIdentity:
    context = ray.train.get_context()
    return RankIdentity(
        rank=context.get_world_rank(),
        local_rank=context.get_local_rank(),
        world_size=context.get_world_size(),
        nodes=context.get_node_rank() + 1,  # as many as this rank knows of; the run has the most that a rank knows of
    )


def _facts(world_size: int) -> RunFacts:
    """What is known before the loop begins: that no phase is measured yet which only the loop can tell apart."""
    device = ray.train.torch.get_device().type
    absent = {Phase.H2D} if device == "cpu" else set()
    if world_size == 1:
        absent.add(Phase.GRAD_SYNC)
    return RunFacts(
        framework="ray",
        versions={"ray": ray.__version__, "torch": str(torch.__version__), "python": platform.python_version()},
        device=device,
        unmeasured=tuple(phase.key for phase in STEP_PHASES if phase not in absent),
    )


def _ticket_of(aggregator: Any, rank: int) -> FindTicket:
    """How a worker comes to its ticket: it asks the actor, on the sender's thread."""

    def find_ticket(stopped: threading.Event) -> Ticket | None:
        ticket: Ticket | None = None
        is_answered = False
        with fail_open(logger, "asking for the run's ticket"):
            answer = aggregator.ticket.remote()
            until_s = time.monotonic() + FETCH_LIMIT_S
            while not stopped.is_set() and time.monotonic() < until_s:
                if ray.wait([answer], timeout=LOOK_INTERVAL_S)[0]:
                    ticket, is_answered = ray.get(answer), True
                    break
        if not is_answered and not stopped.is_set():  # an actor that has no run is not silent: its driver has said why
            say(f"rank {rank} found no run to join and is not recorded; the run's recording actor does not answer")
        return ticket

    return find_ticket
