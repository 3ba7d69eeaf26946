"""How ranks find their run: rank 0's notice under one key of the job's own store. Never a collective.

Called on the sender's thread alone: a store that does not answer must not hold up training. `check` is asked before
`get`, since a `get` that waits would hold the store's lock, which training needs.

The key holds the newest run of rank 0, numbered, until its training is over. So a rank that was in other runs than
rank 0 (without a callback in one of them, say) still finds the one that goes on, and none joins the same run twice.
What that assumes: a rank that sat out a run does not begin the next one while rank 0 still trains in the one before.
torchrun starts all ranks again where one has failed, and its store outlives them: each such attempt has its own key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from traceml_core.core.launch_environment import attempt_in
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.console import say
from traceml_core.transport.keys import Ticket

KEY = "traceml/run"
FETCH_LIMIT_S = 10.0
# A run that ends while its rank still looks for it waits for no more than this: rank 0 may be a little late.
LATE_LIMIT_S = 1.0
# At first ranks begin together, and looks are close; then rank 0 is late or not coming.
FETCH_INTERVAL_S = 0.01
LATE_INTERVAL_S = 0.05
logger = get_error_logger("Rendezvous")

FindTicket = Callable[[threading.Event], Ticket | None]


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


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What rank 0 says of its newest run. `ticket` null: it could not start one; `number` counts its runs."""

    number: int
    ticket: Ticket | None
    is_over: bool = False


class Rendezvous:
    """One process's part in it, over all its runs. Used on one thread at a time."""

    def __init__(self) -> None:
        """A process that knows of no run yet."""
        self._newest = -1

    def publish(self, store: Store, ticket: Ticket | None) -> None:
        """As rank 0, tell the other ranks of a new run; without a ticket, that there is none."""
        self._newest += 1
        self._tell(store, Notice(number=self._newest, ticket=ticket))

    def withdraw(self, store: Store) -> None:
        """As rank 0, tell them that it is over."""
        self._tell(store, Notice(number=self._newest, ticket=None, is_over=True))

    def fetch(self, store: Store, ends: threading.Event, now: Callable[[], float] = time.monotonic) -> Notice | None:
        """Rank 0's notice of a run that this process does not know yet; null where there is none within 10 s.

        `ends` tells that this rank's own run is about to end: then there is no more than a second for it.
        """
        began_s = now()
        while True:
            if store.check([self._key]):
                notice = msgspec.json.decode(store.get(self._key), type=Notice)
                if notice.number > self._newest and not notice.is_over:
                    self._newest = notice.number
                    return notice
            passed_s = now() - began_s
            if passed_s >= (LATE_LIMIT_S if ends.is_set() else FETCH_LIMIT_S):
                return None
            interval_s = FETCH_INTERVAL_S if passed_s < LATE_LIMIT_S else LATE_INTERVAL_S
            if ends.wait(interval_s):
                time.sleep(interval_s)

    @property
    def _key(self) -> str:
        attempt = attempt_in()
        return f"{KEY}/{attempt}" if attempt else KEY

    def _tell(self, store: Store, notice: Notice) -> None:
        store.set(self._key, msgspec.json.encode(notice).decode())


def ticket_publisher(job: Rendezvous, store: Store | None, ticket: Ticket | None) -> FindTicket:
    """How rank 0 comes to its ticket: it has it, and tells the others (null: there is no run)."""

    def publish(ends: threading.Event) -> Ticket | None:
        if store is not None:
            with fail_open(logger, "telling the other ranks of the run"):
                job.publish(store, ticket)
        return ticket

    return publish


def ticket_fetcher(job: Rendezvous, store: Store | None, rank: int) -> FindTicket:
    """How another rank comes to its ticket; where it does not, it says so and is not recorded."""

    def fetch(ends: threading.Event) -> Ticket | None:
        if store is not None:
            with fail_open(logger, "looking for the run"):
                notice = job.fetch(store, ends)
                if notice is not None:
                    return notice.ticket
        say(f"rank {rank} found no run to join and is not recorded; rank 0 needs a TraceMLCallback that is on")
        return None

    return fetch
