"""How ranks find their run: a key in a store, never a collective, never a wait without a limit."""

from __future__ import annotations

import threading

import msgspec
import pytest

from traceml_core.runtime.rendezvous import (
    FETCH_LIMIT_S,
    KEY,
    LATE_LIMIT_S,
    Rendezvous,
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
def ends():
    return threading.Event()


@pytest.fixture
def owner():
    """Rank 0's side."""
    return Rendezvous()


@pytest.fixture
def other():
    """Another rank's side."""
    return Rendezvous()


def passing(*times):
    """A clock that shows these seconds, one at each look."""
    left = iter(times)
    return lambda: next(left)


def test_what_rank_0_publishes_the_others_fetch(store, ends, owner, other):
    owner.publish(store, TICKET)
    assert other.fetch(store, ends).ticket == TICKET


def test_a_rank_that_is_early_waits_for_rank_0(store, ends, owner, other):
    threading.Timer(0.1, owner.publish, (store, TICKET)).start()
    assert other.fetch(store, ends).ticket == TICKET


def test_ranks_that_torchrun_starts_again_do_not_join_the_run_of_those_before(store, ends, owner, other, monkeypatch):
    owner.publish(store, TICKET)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert other.fetch(store, ends, passing(0.0, FETCH_LIMIT_S)) is None
    owner.publish(store, msgspec.structs.replace(TICKET, run_id="second"))
    assert other.fetch(store, ends).ticket.run_id == "second"


def test_a_rank_that_is_early_for_a_second_run_does_not_join_the_first_again(store, ends, owner, other):
    owner.publish(store, TICKET)
    other.fetch(store, ends)
    threading.Timer(0.1, owner.publish, (store, msgspec.structs.replace(TICKET, run_id="second"))).start()
    assert other.fetch(store, ends).ticket.run_id == "second"


def test_a_rank_that_sat_out_runs_joins_the_one_that_goes_on(store, ends, owner, other):
    for run_id in ("first", "second", "third"):
        owner.withdraw(store)
        owner.publish(store, msgspec.structs.replace(TICKET, run_id=run_id))
    assert other.fetch(store, ends).ticket.run_id == "third"


def test_a_rank_that_was_in_runs_which_rank_0_sat_out_joins_the_next(store, ends, owner, other):
    for _ in range(3):
        ends.set()
        assert other.fetch(store, ends, now=passing(0.0, LATE_LIMIT_S)) is None
    owner.publish(store, TICKET)
    assert other.fetch(store, ends).ticket == TICKET


def test_runs_of_a_process_alone_do_not_count(store, ends, owner, other):
    ticket_publisher(other, None, TICKET)(ends)
    owner.publish(store, TICKET)
    assert other.fetch(store, ends).ticket == TICKET


def test_nobody_joins_a_run_that_is_over(store, ends, owner, other):
    owner.publish(store, TICKET)
    owner.withdraw(store)
    assert other.fetch(store, ends, now=passing(0.0, FETCH_LIMIT_S)) is None


def test_nobody_waits_longer_than_the_limit(store, ends, other):
    assert other.fetch(store, ends, now=passing(0.0, FETCH_LIMIT_S - 0.1, FETCH_LIMIT_S)) is None


def test_a_run_that_ends_does_not_wait_to_be_found(store, ends, other):
    ends.set()
    assert other.fetch(store, ends, now=passing(0.0, LATE_LIMIT_S - 0.1, LATE_LIMIT_S)) is None


def test_where_rank_0_says_that_there_is_no_run_the_others_are_silent(store, ends, owner, other, capsys):
    assert ticket_publisher(owner, store, None)(ends) is None
    assert ticket_fetcher(other, store, rank=1)(ends) is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("value", [b"not a notice", b'{"number": "one"}'])
def test_without_a_store_or_with_somebody_elses_value_a_rank_says_one_line(store, ends, other, capsys, value):
    store[KEY] = value
    for places in (None, store):
        assert ticket_fetcher(other, places, rank=3)(ends) is None
        assert capsys.readouterr().err.startswith("TraceML: rank 3 found no run to join")


class BrokenStore(DictStore):
    """The process that kept it is gone."""

    def check(self, keys):
        raise RuntimeError("the store is gone")

    set = get = check


def test_a_store_that_fails_costs_rank_0_nothing(ends, owner):
    assert ticket_publisher(owner, BrokenStore(), TICKET)(ends) == TICKET


def test_a_store_that_fails_leaves_another_rank_unrecorded_with_one_line(ends, other, capsys):
    assert ticket_fetcher(other, BrokenStore(), rank=1)(ends) is None
    assert capsys.readouterr().err.count("\n") == 1
