"""The wire: real sockets on a descriptor that somebody else bound; who may speak, and for whom."""

from __future__ import annotations

import os
import socket

import msgspec
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from knocking import wait_for_event
from own_time import Beats
from rich.pretty import pretty_repr
from telemetry_factory import make_batch, make_finish, make_hello, make_step_row
from waiting import LIMIT_S

from traceml_core.runtime.aggregator_config import AggregatorConfig
from traceml_core.telemetry.messages import Batch, Hello, Refused, Welcome
from traceml_core.transport import listener
from traceml_core.transport import server as server_module
from traceml_core.transport import strangers as strangers_module
from traceml_core.transport.client import SEND_QUEUE, TelemetryClient
from traceml_core.transport.keys import Ticket, make_keys, ticket_for
from traceml_core.transport.listener import address_in_job, address_towards, endpoint_of, open_listener
from traceml_core.transport.server import MAX_MESSAGE_BYTES, TelemetryServer

LIMIT_MS = int(LIMIT_S * 1000)
SHORT_MS = 300
# Strangers are shown out after it; for those who have the key it is more than enough.
SHORT_HANDSHAKE_MS = 2_000


class Wire:
    """A listening socket with its keys, servers on it one after the other, and clients."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.keys = make_keys()
        self.listener = open_listener(host)
        self.ticket = ticket_for(self.keys, endpoint_of(self.listener), "run")
        self.server: TelemetryServer | None = None
        self.clients: list[TelemetryClient] = []

    def serve(self) -> TelemetryServer:
        self.server = TelemetryServer(
            self.listener.fileno(),
            server_public=self.keys.server_public,
            server_secret=self.keys.server_secret,
            client_public=self.keys.client_public,
        )
        return self.server

    def client(self, ticket: Ticket | None = None) -> TelemetryClient:
        self.clients.append(TelemetryClient(ticket or self.ticket))
        return self.clients[-1]

    def receive(self, count: int = 1) -> list:
        """The next messages that the server lets through."""
        received: list = []
        for _ in range(LIMIT_MS // 50):
            received += self.server.receive(50)
            if len(received) >= count:
                return received
        raise TimeoutError(f"{received} after {LIMIT_MS} ms; refused: {self.server.refused}")

    def receive_until_refused(self, reason: str, count: int = 1) -> list:
        received: list = []
        for _ in range(LIMIT_MS // 50):
            received += self.server.receive(50)
            if self.server.refused[reason] >= count:
                return received
        raise TimeoutError(f"refused: {self.server.refused}")

    def receive_strangers(self, count: int) -> None:
        counted = 0
        for _ in range(LIMIT_MS // 50):
            assert self.server.receive(50) == []
            counted += self.server.take_refused()["no handshake"]
            if counted >= count:
                return
        raise TimeoutError(f"{counted} strangers")

    def close(self) -> None:
        for client in self.clients:
            client.close()
        if self.server is not None:
            self.server.close(0)
        self.listener.close()


@pytest.fixture
def wire():
    wire = Wire()
    yield wire
    wire.close()


def test_what_a_rank_says_arrives_in_order_and_is_answered(wire):
    server, client = wire.serve(), wire.client()
    said = [make_hello(), make_batch(1, [make_step_row()]), make_batch(2)]
    assert all(client.send(message) for message in said)
    received = wire.receive(3)
    assert [type(message) for _, message in received] == [Hello, Batch, Batch]
    assert [message.seq for _, message in received[1:]] == [1, 2]
    server.send(received[0][0], Welcome(5, 2))
    assert client.receive(LIMIT_MS) == Welcome(5, 2)


def test_a_client_that_connected_before_the_server_existed_is_served(wire):
    client = wire.client()
    client.send(make_hello())
    wire.serve()
    assert isinstance(wire.receive()[0][1], Hello)


def test_a_server_on_the_same_descriptor_takes_over_and_the_owner_keeps_the_descriptor(wire):
    first, client = wire.serve(), wire.client()
    client.send(make_hello())
    wire.receive()
    events = client._dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    first.close(0)
    assert os.fstat(wire.listener.fileno())
    wait_for_event(events)
    wire.serve()
    # What is said now belongs to a connection that the new server does not know: it has to be introduced.
    client.send(make_batch(1))
    wire.receive_until_refused("no hello")
    assert isinstance(client.receive(LIMIT_MS), Refused)
    client.send(make_hello())
    assert isinstance(wire.receive()[0][1], Hello)
    client._dealer.disable_monitor()


def test_a_client_with_another_key_is_refused_and_hears_nothing(wire):
    server, stranger = wire.serve(), wire.client(with_key_of_another_run(wire.ticket))
    stranger.send(make_hello())
    assert wire.receive_until_refused("wrong key") == []
    assert stranger.receive(SHORT_MS) is None
    member = wire.client()
    member.send(make_hello())
    ((peer, _),) = wire.receive()
    server.send(peer, Welcome(1, 0))
    assert member.receive(LIMIT_MS) == Welcome(1, 0)


def test_a_client_without_any_key_adds_nothing(wire):
    server = wire.serve()
    context = zmq.Context()
    plain = context.socket(zmq.DEALER)
    plain.linger = 0
    plain.connect(wire.ticket.endpoint)
    plain.send(msgspec.msgpack.encode(make_hello()))
    assert server.receive(SHORT_MS) == []
    plain.close()
    context.term()


def test_connections_that_never_get_through_the_handshake_are_counted_once_and_ranks_never(wire, monkeypatch):
    monkeypatch.setattr(server_module, "HANDSHAKE_MS", SHORT_HANDSHAKE_MS)
    wire.serve()
    address = wire.listener.getsockname()
    member = wire.client()
    with socket.create_connection(address), socket.create_connection(address) as browser:
        browser.sendall(b"GET / HTTP/1.1\r\n\r\n")
        member.send(make_hello())
        wire.receive()
        wire.receive_strangers(2)
    member.close()
    wire.client().send(make_hello(1))
    wire.receive()
    with Beats() as beats:
        while beats.seconds < 1.5 * SHORT_HANDSHAKE_MS / 1000:
            assert wire.server.receive(SHORT_MS) == []
    assert wire.server.take_refused() == {}


def test_a_connection_in_the_midst_of_its_handshake_makes_no_stranger_of_one_that_has_ended(wire, monkeypatch):
    monkeypatch.setattr(strangers_module, "UNSETTLED_S", LIMIT_S)
    server, member = wire.serve(), wire.client()
    member.send(make_hello())
    wire.receive()
    member.close()
    wire.client(with_key_of_another_run(wire.ticket)).send(make_hello())
    wire.receive_until_refused("wrong key")
    with socket.create_connection(wire.listener.getsockname()):
        for _ in range(5):
            assert server.receive(50) == []
        assert server.take_refused().keys() == {"wrong key"}


def test_a_frame_that_promises_more_than_the_cap_is_cut_off_before_it_costs_memory(wire):
    wire.serve()
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
    with socket.create_connection(wire.listener.getsockname()) as liar:
        liar.sendall(greeting + b"\x02" + (2**32).to_bytes(8, "big"))
        wire.receive_strangers(1)


def test_keys_have_no_representation(wire):
    keys = [getattr(wire.keys, name) for name in wire.keys.__struct_fields__]
    config = AggregatorConfig(
        run_id="run", folder="runs/run", owner_pid=1, owner_birth="", mode="summary", keep_raw_steps=10,
        server_public=keys[0], server_secret=keys[1], client_public=keys[2],
    )  # fmt: skip
    shown = "".join(f"{value!r}{pretty_repr(value)}" for value in (wire.keys, wire.ticket, config))
    assert not [key for key in keys if key in shown]


def test_a_client_that_takes_another_server_for_ours_says_nothing_to_it(wire):
    server = wire.serve()
    misled = wire.client(msgspec.structs.replace(wire.ticket, server_public=make_keys().server_public))
    misled.send(make_hello())
    assert server.receive(SHORT_MS) == []


def test_a_silent_connection_and_one_that_speaks_http_hold_up_nobody(wire):
    wire.serve()
    address = wire.listener.getsockname()
    with socket.create_connection(address), socket.create_connection(address) as browser:
        browser.sendall(b"GET / HTTP/1.1\r\n\r\n")
        client = wire.client()
        client.send(make_hello())
        assert isinstance(wire.receive()[0][1], Hello)


@pytest.mark.parametrize(
    "message", [make_batch(1, rank=1), make_batch(1, incarnation=8), make_finish(rank=1)], ids=["rank", "life", "end"]
)
def test_words_for_another_rank_are_refused_and_counted(wire, message):
    wire.serve()
    client = wire.client()
    client.send(make_hello(rank=0, incarnation=7))
    wire.receive()
    client.send(message)
    assert wire.receive_until_refused("rows for another rank") == []
    assert isinstance(client.receive(LIMIT_MS), Refused)


def test_a_connection_belongs_to_the_rank_of_its_first_hello(wire):
    wire.serve()
    client = wire.client()
    client.send(make_hello(rank=0))
    client.send(make_hello(rank=0))
    assert len(wire.receive(2)) == 2
    client.send(make_hello(rank=1))
    assert wire.receive_until_refused("another rank's hello on a bound connection") == []


def test_a_message_above_the_limit_cuts_its_connection_off_and_the_next_one_is_served(wire):
    wire.serve()
    flood = wire.client()
    flood.send(make_hello(rank=1))
    wire.receive()
    flood._dealer.send(b"x" * (MAX_MESSAGE_BYTES + 1))
    client = wire.client()
    client.send(make_hello())
    assert [message.identity.rank for _, message in wire.receive()] == [0]


def test_sending_never_waits_though_nobody_listens(wire):
    client = wire.client()
    taken = [client.send(make_hello()) for _ in range(SEND_QUEUE + 50)]
    assert taken[0] and not taken[-1]


def test_an_answer_to_somebody_who_has_left_is_counted(wire):
    server = wire.serve()
    server.send(b"nobody", Welcome(1, 0))
    assert server.refused["unreachable"] == 1


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    st.one_of(
        st.lists(st.binary(max_size=60), min_size=1, max_size=3),
        st.recursive(st.none() | st.integers(-(2**63), 2**63) | st.text(max_size=8), st.lists, max_leaves=9).map(
            lambda value: [msgspec.msgpack.encode(["batch", value])]
        ),
        st.just([b"\x91" * 100_000]),
    )
)
def test_no_bytes_whatsoever_get_past_the_decoder_or_stop_the_server(fuzzed, frames):
    server, dealer = fuzzed
    before = server.refused.total()
    dealer.send_multipart(frames)
    for _ in range(LIMIT_MS // 50):
        assert server.receive(50) == []
        if server.refused.total() > before:
            return
    raise TimeoutError("the server went silent")


@pytest.fixture(scope="module")
def fuzzed():
    wire = Wire()
    server, client = wire.serve(), wire.client()
    yield server, client._dealer
    wire.close()


def test_the_address_towards_this_machine_is_its_own():
    assert address_towards("127.0.0.1") == "127.0.0.1"


def test_a_host_without_an_address_is_an_error():
    with pytest.raises(OSError):
        address_towards("no-such-host.invalid")


def test_where_all_nodes_are_this_machine_the_address_in_the_job_is_loopback():
    for master in ("127.0.0.1", "localhost"):
        assert address_in_job({"MASTER_ADDR": master}) == "127.0.0.1"


def test_a_master_that_knows_its_own_name_as_loopback_is_reached_on_its_way_out(monkeypatch):
    ways = {"node-0": "127.0.1.1", listener.ELSEWHERE[0]: "203.0.113.7"}
    monkeypatch.setattr(listener, "address_towards", ways.__getitem__)
    assert address_in_job({"MASTER_ADDR": "node-0"}) == "203.0.113.7"


def test_ranks_reach_an_aggregator_over_ipv6():
    try:
        wire = Wire("::1")
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here ({error.strerror})")
    assert address_towards("::1") == "::1"
    assert wire.ticket.endpoint.startswith("tcp://[::1]:")
    server, client = wire.serve(), wire.client()
    client.send(make_hello())
    ((peer, _),) = wire.receive()
    server.send(peer, Welcome(1, 0))
    assert client.receive(LIMIT_MS) == Welcome(1, 0)
    wire.close()


def test_a_port_that_is_taken_is_an_error(wire):
    with pytest.raises(OSError):
        open_listener(port=wire.listener.getsockname()[1])


def with_key_of_another_run(ticket: Ticket) -> Ticket:
    other = make_keys()
    return msgspec.structs.replace(ticket, client_public=other.client_public, client_secret=other.client_secret)
