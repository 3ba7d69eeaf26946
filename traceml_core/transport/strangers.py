"""Counts the connections that never got through the handshake: no key, random bytes, silence, a speaker who dawdles.

libzmq drops them by itself and tells nobody but a monitor.
"""

from __future__ import annotations

import struct

import zmq

ENDPOINT = "inproc://traceml-connections"
EVENT = struct.Struct("=Hi")  # what happened, to which descriptor; pyzmq's own parser would load asyncio
EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH


class StrangerCount:
    """Watches one listening socket. Not thread-safe.

    libzmq does not say which connection has got through, only that one has. It is taken for the youngest: ranks are
    through in milliseconds, strangers are not. Where that is wrong, a stranger is counted later, and still once.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], listening: zmq.Socket[bytes]) -> None:
        """Watch `listening` from now on."""
        self._listening = listening
        self._handshaking: dict[int, None] = {}
        self._refused_by_key = False
        listening.monitor(ENDPOINT, EVENTS)
        self.events = context.socket(zmq.PAIR)
        # Without a bound: a full queue of events would hold up libzmq, and with it the ranks.
        self.events.rcvhwm = 0
        self.events.linger = 0
        self.events.connect(ENDPOINT)

    def count(self) -> int:
        """How many strangers have left, or were shown out, since this was last asked."""
        strangers = 0
        while True:
            try:
                frames = self.events.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return strangers
            strangers += self._hear(*EVENT.unpack(frames[0]))

    def close(self) -> None:
        """Watch no more."""
        self._listening.disable_monitor()
        self.events.close()

    def _hear(self, event: int, connection: int) -> bool:
        if event == zmq.EVENT_ACCEPTED:
            self._handshaking[connection] = None
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            if self._handshaking:
                self._handshaking.popitem()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refused_by_key = True  # that one is counted by whoever looked at its key
        else:
            known, self._refused_by_key = self._refused_by_key, False
            return connection in self._handshaking and (self._handshaking.pop(connection) is None) and not known
        return False
