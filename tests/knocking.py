"""Knocking at a run's door, once, with keys or without; until one is shown out."""

from __future__ import annotations

import msgspec
import zmq
from waiting import LIMIT_S
from zmq.utils.monitor import recv_monitor_message

from traceml_core.telemetry.messages import FromRank
from traceml_core.transport.keys import RunKeys, Ticket

SHOWN_OUT = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)


def knock(ticket: Ticket, keys: RunKeys | None, *messages: FromRank) -> bool:
    """Connect with these client keys, say something, and stay until one is shown out; whether anything was heard.

    Raises:
        TimeoutError: nobody shows the stranger out.
    """
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.reconnect_ivl = 600_000
        if keys is not None:
            dealer.curve_serverkey = ticket.server_public.encode()
            dealer.curve_publickey = keys.client_public.encode()
            dealer.curve_secretkey = keys.client_secret.encode()
        events = dealer.get_monitor_socket(SHOWN_OUT)
        dealer.connect(ticket.endpoint)
        for message in messages:
            dealer.send(msgspec.msgpack.encode(message))
        wait_for_event(events)
        heard = bool(dealer.poll(0))
        dealer.disable_monitor()
        return heard


def wait_for_event(events: zmq.Socket[bytes]) -> None:
    """Wait until the monitor tells of one.

    Raises:
        TimeoutError: it does not.
    """
    if not events.poll(LIMIT_S * 1000):
        raise TimeoutError("nothing happened to the connection")
    recv_monitor_message(events)
