"""How ranks find their run: a key in a store, never a collective, never a wait without a limit."""

from __future__ import annotations

import threading

import msgspec
import pytest

from traceml_core.runtime.rendezvous import (
    FETCH_LIMIT_S,
    TicketNotFoundError,
    fetch_ticket,
    publish_ticket,
    ticket_fetcher,
    ticket_publisher,
)
from traceml_core.transport.keys import make_keys, ticket_for

TICKET = ticket_for(make_keys(), "tcp://127.0.0.1:1", "run")


class DictStore(dict):
    """A store without a job. `get` of what is not there is an error: a real one would wait, and hold its lock."""

    def check(self, keys):
        return all(key in self for key in keys)

    def set(self, key, value):
        self[key] = value.encode()

    def get(self, key):
        return self[key]


@pytest.fixture
def store():
    return DictStore()


@pytest.fixture
def stopped():
    return threading.Event()


def test_what_rank_0_publishes_the_others_fetch(store, stopped):
    publish_ticket(store, 3, TICKET)
    assert fetch_ticket(store, 3, stopped) == TICKET


def test_each_run_of_a_process_has_a_key_of_its_own(store, stopped):
    publish_ticket(store, 0, TICKET)
    publish_ticket(store, 1, msgspec.structs.replace(TICKET, run_id="second"))
    assert [fetch_ticket(store, number, stopped).run_id for number in (0, 1)] == ["run", "second"]


def test_a_rank_that_is_early_waits_for_rank_0(store, stopped):
    threading.Timer(0.1, publish_ticket, (store, 0, TICKET)).start()
    assert fetch_ticket(store, 0, stopped) == TICKET


def test_nobody_waits_longer_than_the_limit(store, stopped):
    times = iter([0.0, 0.1, FETCH_LIMIT_S + 0.1])
    with pytest.raises(TicketNotFoundError):
        fetch_ticket(store, 0, stopped, now=lambda: next(times))


def test_a_rank_that_stops_stops_waiting(store, stopped):
    threading.Timer(0.1, stopped.set).start()
    assert fetch_ticket(store, 0, stopped) is None


def test_where_rank_0_says_that_there_is_no_run_the_others_are_silent(store, stopped, capsys):
    assert ticket_publisher(store, 0, None)(stopped) is None
    assert ticket_fetcher(store, 0, rank=1)(stopped) is None
    assert capsys.readouterr().err == ""


def test_without_a_store_or_with_somebody_elses_value_a_rank_says_one_line(store, stopped, capsys):
    store["traceml/ticket/0"] = b"not a ticket"
    for places in (None, store):
        assert ticket_fetcher(places, 0, rank=3)(stopped) is None
        assert capsys.readouterr().err.startswith("TraceML: rank 3 found no run to join")


def test_a_store_that_fails_costs_rank_0_nothing(stopped):
    class Broken(DictStore):
        def set(self, key, value):
            raise RuntimeError("the store is gone")

    assert ticket_publisher(Broken(), 0, TICKET)(stopped) == TICKET
