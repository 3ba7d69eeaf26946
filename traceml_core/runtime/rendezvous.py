"""How ranks find their run: one ticket under one key of the job's own store. Never a collective.

Called on the sender's thread alone: a store that does not answer must not hold up training. `check` is asked before
`get`, since a `get` that waits would hold the store's lock, which training needs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.console import say
from traceml_core.transport.keys import Ticket

FETCH_LIMIT_S = 10.0
FETCH_INTERVAL_S = 0.05
logger = get_error_logger("Rendezvous")


class Store(Protocol):
    """The part of `torch.distributed.Store` that is used."""

    def set(self, key: str, value: str) -> None:
        """Put a value."""
        ...

    def get(self, key: str) -> bytes:
        """Get a value that is there."""
        ...

    def check(self, keys: list[str]) -> bool:
        """Whether all keys are there, without waiting."""
        ...


class TicketNotFoundError(Exception):
    """Rank 0 put no ticket into the store in time: no callback there, or it is switched off."""


FindTicket = Callable[[threading.Event], Ticket | None]


def ticket_publisher(store: Store | None, number: int, ticket: Ticket | None) -> FindTicket:
    """How rank 0 comes to its ticket: it has it, and puts it into the store for the others (null: there is no run)."""

    def publish(stopped: threading.Event) -> Ticket | None:
        if store is not None:
            with fail_open(logger, "telling the other ranks of the run"):
                publish_ticket(store, number, ticket)
        return ticket

    return publish


def ticket_fetcher(store: Store | None, number: int, rank: int) -> FindTicket:
    """How another rank comes to its ticket; where it does not, it says so and is not recorded."""

    def fetch(stopped: threading.Event) -> Ticket | None:
        try:
            if store is not None:
                return fetch_ticket(store, number, stopped)
        except (TicketNotFoundError, msgspec.MsgspecError):
            pass
        say(f"rank {rank} found no run to join and is not recorded; rank 0 needs a TraceMLCallback that is on")
        return None

    return fetch


def publish_ticket(store: Store, number: int, ticket: Ticket | None) -> None:
    """Put the ticket of this process's run `number` into the store; null says that there is no run to join."""
    store.set(_key(number), msgspec.json.encode(ticket).decode())


def fetch_ticket(
    store: Store, number: int, stopped: threading.Event, now: Callable[[], float] = time.monotonic
) -> Ticket | None:
    """The ticket of run `number`; None where rank 0 says that there is no run, or once `stopped` is set.

    Raises:
        TicketNotFoundError: there is none within 10 s.
    """
    until = now() + FETCH_LIMIT_S
    while not store.check([_key(number)]):
        if now() >= until:
            raise TicketNotFoundError(f"no ticket of run {number} within {FETCH_LIMIT_S:g} s")
        if stopped.wait(FETCH_INTERVAL_S):
            return None
    found: Ticket | None = msgspec.json.decode(store.get(_key(number)), type=Ticket | None)
    return found


def _key(number: int) -> str:
    return f"traceml/ticket/{number}"
