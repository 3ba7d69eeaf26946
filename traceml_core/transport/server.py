"""The aggregator's end of the wire: admits one key, binds each connection to one rank, decodes what it says."""

from __future__ import annotations

import os
import socket
from collections import Counter

import zmq
from zmq.utils import z85

from traceml_core.telemetry.messages import (
    NO_HELLO,
    Batch,
    Finish,
    FromAggregator,
    FromRank,
    Hello,
    Refused,
    decode_from_rank,
    encode,
)
from traceml_core.transport.listener import endpoint_of, is_ipv6
from traceml_core.transport.strangers import StrangerCount

# Twice what a rank sends at most. A connection can make libzmq set this much aside before it has shown any key.
MAX_MESSAGE_BYTES = 1024 * 1024
HANDSHAKE_MS = 5_000
HEARTBEAT_MS = 10_000
RECEIVE_LIMIT = 256
# Of one rank; it has 16 batches under way, and some hellos.
RECEIVE_QUEUE = 64
ZAP_ENDPOINT = "inproc://zeromq.zap.01"


class TelemetryServer:
    """A CURVE ROUTER on a listening descriptor that somebody else bound. Not thread-safe."""

    def __init__(self, listening_fd: int, *, server_public: str, server_secret: str, client_public: str) -> None:
        """Serve on `listening_fd`; the keys are Z85 text."""
        self.refused: Counter[str] = Counter()
        self._admitted = z85.decode(client_public.encode())
        self._senders: dict[bytes, tuple[int, int]] = {}
        self._context = zmq.Context()
        self._zap = self._context.socket(zmq.REP)
        self._zap.linger = 0
        self._zap.bind(ZAP_ENDPOINT)
        self._router = self._context.socket(zmq.ROUTER)
        self._configure(server_public, server_secret)
        endpoint = _endpoint_of(listening_fd)
        self._router.ipv6 = is_ipv6(endpoint)
        # libzmq closes the descriptor it was given; the caller's stays open.
        self._router.setsockopt(zmq.USE_FD, os.dup(listening_fd))
        self._strangers = StrangerCount(self._context, self._router, HANDSHAKE_MS / 1000)
        self._router.bind(endpoint)
        self._poller = zmq.Poller()
        self._poller.register(self._router, zmq.POLLIN)
        self._poller.register(self._zap, zmq.POLLIN)
        self._poller.register(self._strangers.events, zmq.POLLIN)

    def receive(self, timeout_ms: int) -> list[tuple[bytes, FromRank]]:
        """What ranks said within `timeout_ms`, in order, with the connection it came from. Refusals are counted."""
        received: list[tuple[bytes, FromRank]] = []
        ready = dict(self._poller.poll(timeout_ms))
        if self._zap in ready:
            self._answer_handshakes()
        if self._strangers.events in ready:
            self._strangers.hear()
        if self._router in ready:
            while len(received) < RECEIVE_LIMIT:
                try:
                    frames = self._router.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                message = self._admit(frames)
                if message is not None:
                    received.append((frames[0], message))
        return received

    def take_refused(self) -> Counter[str]:
        """What was refused since this was last asked, by reason."""
        if strangers := self._strangers.take():
            self.refused["no handshake"] += strangers
        refused, self.refused = self.refused, Counter()
        return refused

    def send(self, peer: bytes, message: FromAggregator) -> None:
        """Say something to a connection; one that is gone or does not read is counted, not waited for."""
        try:
            self._router.send_multipart([peer, encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError:
            self.refused["unreachable"] += 1

    def close(self, linger_ms: int = 500) -> None:
        """Let what was said go out for at most `linger_ms`, and close."""
        self._strangers.close()
        self._router.linger = linger_ms
        self._router.close()
        self._zap.close()
        self._context.term()

    def _configure(self, server_public: str, server_secret: str) -> None:
        router = self._router
        router.curve_server = True
        router.curve_publickey = server_public.encode()
        router.curve_secretkey = server_secret.encode()
        router.maxmsgsize = MAX_MESSAGE_BYTES
        router.handshake_ivl = HANDSHAKE_MS
        router.heartbeat_ivl = HEARTBEAT_MS
        router.rcvhwm = RECEIVE_QUEUE
        router.router_mandatory = True
        router.linger = 0

    def _answer_handshakes(self) -> None:
        """ZAP (RFC 27): admit the one client key, refuse everybody else in silence."""
        while True:
            try:
                frames = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            request = frames[1] if len(frames) > 1 else b""
            admitted = len(frames) == 7 and frames[5] == b"CURVE" and frames[6] == self._admitted
            if not admitted:
                self.refused["wrong key"] += 1
            status = [b"200", b"OK"] if admitted else [b"400", b"not admitted"]
            self._zap.send_multipart([b"1.0", request, *status, b"", b""])

    def _admit(self, frames: list[bytes]) -> FromRank | None:
        """The decoded message, if it may come from this connection."""
        peer = frames[0]
        try:
            (payload,) = frames[1:]
            message: FromRank = decode_from_rank(payload)
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors; deep nesting is the other one
            self.refused["malformed"] += 1
            return None
        reason = self._objection(peer, message)
        if reason is None:
            return message
        self.refused[reason] += 1
        self.send(peer, Refused(reason))
        return None

    def _objection(self, peer: bytes, message: FromRank) -> str | None:
        """Why this connection may not say this, if it may not."""
        if isinstance(message, Hello):
            sender = (message.identity.rank, message.identity.incarnation)
            if self._senders.setdefault(peer, sender) != sender:
                return "another rank's hello on a bound connection"
        elif peer not in self._senders:
            return NO_HELLO
        elif isinstance(message, (Batch, Finish)) and (message.rank, message.incarnation) != self._senders[peer]:
            return "rows for another rank"
        return None


def _endpoint_of(descriptor: int) -> str:
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        return endpoint_of(listener)
