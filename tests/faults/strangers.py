"""Those who knock at a run's door without belonging to it, and one who belongs to it and misbehaves."""

from __future__ import annotations

import os
import socket
import struct

from knocking import knock
from waiting import LIMIT_S

from traceml_core.core.identity import RankIdentity
from traceml_core.telemetry.messages import Batch, FromAggregator, Hello, Refused, Welcome
from traceml_core.transport.client import TelemetryClient
from traceml_core.transport.keys import Ticket, make_keys
from traceml_core.transport.server import HANDSHAKE_MS

# ZMTP 3.0, mechanism CURVE, as a client.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
ANSWER_MS = int(LIMIT_S * 1000)
# After each byte of a greeting, which would take longer than the server allows for all of the handshake.
DAWDLE_S = 0.3


def address_of(ticket: Ticket) -> tuple[str, int]:
    """Where the run listens."""
    host, _, port = ticket.endpoint.removeprefix("tcp://").rpartition(":")
    return host, int(port)


def connect(ticket: Ticket, *said: bytes) -> socket.socket:
    """A connection that says something and stays."""
    connection = socket.create_connection(address_of(ticket))
    for words in said:
        connection.sendall(words)
    return connection


def speak_random_bytes(ticket: Ticket) -> socket.socket:
    """Bytes of no protocol."""
    return connect(ticket, b"\0" + os.urandom(4_000))


def announce_four_gib(ticket: Ticket) -> socket.socket:
    """A frame header that promises 4 GiB, and their beginning."""
    return connect(ticket, GREETING, b"\x02" + struct.pack(">Q", 2**32), bytes(1_000))


def send_without_a_key(ticket: Ticket) -> None:
    """A ZeroMQ client that speaks no CURVE."""
    assert not knock(ticket, None, hello(0), batch(0)), "a stranger heard something"


def send_with_a_wrong_key(ticket: Ticket) -> None:
    """A CURVE client that knows the run's public key and has a key pair of its own."""
    assert not knock(ticket, make_keys(), hello(0), batch(0)), "a stranger heard something"


def dawdle(ticket: Ticket) -> bool:
    """Say a right greeting byte by byte; whether the connection was cut before it was over."""
    with connect(ticket) as connection:
        connection.settimeout(DAWDLE_S)
        for byte in range(3 * HANDSHAKE_MS // int(DAWDLE_S * 1000)):
            try:
                connection.sendall(GREETING[byte : byte + 1])
                while connection.recv(1_000):
                    pass
                return True
            except TimeoutError:
                continue
            except OSError:
                return True
    return False


def speak_for_another_rank(ticket: Ticket) -> FromAggregator:
    """A holder of the run's ticket sends rows of rank 0 as rank 1; the answer."""
    client = TelemetryClient(ticket)
    assert client.send(hello(1))
    assert isinstance(client.receive(ANSWER_MS), Welcome)
    assert client.send(batch(0))
    answer = client.receive(ANSWER_MS)
    client.close()
    assert isinstance(answer, Refused)
    return answer


def speak_nonsense(ticket: Ticket) -> None:
    """A holder of the run's ticket sends what is no message: nested deeply, of a length that is not there."""
    client = TelemetryClient(ticket)
    assert client.send(hello(2))
    assert isinstance(client.receive(ANSWER_MS), Welcome)
    for words in (b"\x91" * 500_000, b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", os.urandom(1_000)):
        client._dealer.send(words)
    client._dealer.send(bytes(2 * 2**20))  # above the cap: the connection is cut
    client.close(linger_ms=ANSWER_MS)


def hello(rank: int) -> Hello:
    """The first word of a rank that is none."""
    return Hello(RankIdentity(rank=rank, incarnation=1_000 + rank), 0)


def batch(rank: int) -> Batch:
    """A batch of a rank that is none."""
    return Batch(rank, 1_000 + rank, 1, 0, 0, {}, [])
