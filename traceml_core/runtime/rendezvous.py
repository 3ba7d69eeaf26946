"""How ranks find their run: one ticket under one key of the job's own store. Never a collective."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from traceml_core.transport.keys import Ticket

FETCH_LIMIT_S = 10.0
FETCH_INTERVAL_S = 0.05


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


def publish_ticket(store: Store, number: int, ticket: Ticket) -> None:
    """Put the ticket of this process's run `number` into the store."""
    store.set(_key(number), msgspec.json.encode(ticket).decode())


def fetch_ticket(
    store: Store, number: int, stopped: threading.Event, now: Callable[[], float] = time.monotonic
) -> Ticket | None:
    """The ticket of run `number`; None where there is none within 10 s, or once `stopped` is set."""
    until = now() + FETCH_LIMIT_S
    while not store.check([_key(number)]):
        if now() >= until or stopped.wait(FETCH_INTERVAL_S):
            return None
    return msgspec.json.decode(store.get(_key(number)), type=Ticket)


def _key(number: int) -> str:
    return f"traceml/ticket/{number}"
