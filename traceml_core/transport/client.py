"""A rank's end of the wire. One thread, the sender's, owns it; sending never waits."""

from __future__ import annotations

import msgspec
import zmq

from traceml_core.telemetry.messages import FromAggregator, FromRank, decode_from_aggregator, encode
from traceml_core.transport.keys import Ticket
from traceml_core.transport.listener import is_ipv6

# Small, since what waits in libzmq waits in memory: the sender's own queue is the one that is bounded in bytes.
SEND_QUEUE = 32
RECONNECT_MS = 50
RECONNECT_MAX_MS = 1_000
# The kernel would go on for minutes, ever more rarely, and come back long after a cut network has healed.
CONNECT_MS = 3_000
HANDSHAKE_MS = 10_000
HEARTBEAT_MS = 2_000


class TelemetryClient:
    """A CURVE DEALER to one aggregator. It reconnects by itself and does not tell when it did."""

    def __init__(self, ticket: Ticket) -> None:
        """Begin to connect; nothing waits for it.

        Raises:
            zmq.ZMQError: the ticket's endpoint or keys are none.
        """
        self._context = zmq.Context()
        self._dealer = self._context.socket(zmq.DEALER)
        dealer = self._dealer
        dealer.curve_serverkey = ticket.server_public.encode()
        dealer.curve_publickey = ticket.client_public.encode()
        dealer.curve_secretkey = ticket.client_secret.encode()
        dealer.sndhwm = SEND_QUEUE
        dealer.linger = 0
        dealer.reconnect_ivl = RECONNECT_MS
        dealer.reconnect_ivl_max = RECONNECT_MAX_MS
        dealer.connect_timeout = CONNECT_MS
        dealer.handshake_ivl = HANDSHAKE_MS
        dealer.heartbeat_ivl = HEARTBEAT_MS
        dealer.ipv6 = is_ipv6(ticket.endpoint)
        dealer.connect(ticket.endpoint)

    def send(self, message: FromRank) -> bool:
        """Queue a message; False where the queue is full."""
        try:
            self._dealer.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, timeout_ms: int = 0) -> FromAggregator | None:
        """What the aggregator says within `timeout_ms`, or None. What cannot be read is passed over."""
        if not self._dealer.poll(timeout_ms):
            return None
        frames = self._dealer.recv_multipart(zmq.NOBLOCK)
        try:
            message: FromAggregator = decode_from_aggregator(frames[-1])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return message

    def close(self, linger_ms: int = 0) -> None:
        """Let what was said go out for at most `linger_ms`, and close. Safe to call more than once."""
        self._dealer.close(linger=linger_ms)
        self._context.term()
