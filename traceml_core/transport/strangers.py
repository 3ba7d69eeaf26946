"""Counts the connections that never got through the handshake: no key, random bytes, silence, a speaker who dawdles.

libzmq drops them by itself and tells nobody but a monitor.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import zmq

ENDPOINT = "inproc://traceml-connections"
EVENT = struct.Struct("=Hi")  # what happened, to which descriptor; pyzmq's own parser would load asyncio
# One that is younger may be in the midst of its handshake, which takes milliseconds on a machine with a free core.
UNSETTLED_S = 0.5
EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH


class StrangerCount:
    """Watches one listening socket. Not thread-safe.

    libzmq says that a connection has got through, or was shown out for its key, but not which. So it is a matter of
    sums: of the connections that have ended, strangers are those that are neither among the ones that got through nor
    shown out: whoever looked at a key counts it. One that has outlived the handshake's time limit has got through; of
    younger ones that are still open, as many as can be are taken for ranks, since ranks stay. One that is so young that
    it may be in the midst of its handshake is not, lest a rank that has ended be taken for a stranger.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        listening: zmq.Socket[bytes],
        handshake_s: float,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch `listening` from now on; a handshake there takes at most `handshake_s`."""
        self._listening = listening
        self._sure_after_s = 2 * handshake_s
        self._now_s = now_s
        self._young: dict[int, float] = {}
        self._through = 0
        self._shown_out = 0
        self._proved = 0
        self._ended = 0
        self._told = 0
        self._old: set[int] = set()
        listening.monitor(ENDPOINT, EVENTS)
        self.events = context.socket(zmq.PAIR)
        # Without a bound: a full queue of events would hold up libzmq, and with it the ranks.
        self.events.rcvhwm = 0
        self.events.linger = 0
        self.events.connect(ENDPOINT)

    def hear(self) -> None:
        """Take in what has happened."""
        now_s = self._now_s()
        while True:
            try:
                frames = self.events.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            event, connection = EVENT.unpack(frames[0])
            self._note(event, connection, now_s)
        proved = [one for one, since_s in self._young.items() if now_s - since_s > self._sure_after_s]
        for one in proved:
            del self._young[one]
        self._old.update(proved)
        self._proved += len(proved)

    def take(self) -> int:
        """How many strangers have left, or were shown out, since this was last asked."""
        self.hear()
        now_s = self._now_s()
        settled = sum(now_s - since_s > UNSETTLED_S for since_s in self._young.values())
        ranks_ended = max(self._through - self._proved - settled, 0)
        new = max(self._ended - self._shown_out - ranks_ended - self._told, 0)
        self._told += new
        return new

    def close(self) -> None:
        """Watch no more."""
        self._listening.disable_monitor()
        self.events.close()

    def _note(self, event: int, connection: int, now_s: float) -> None:
        if event == zmq.EVENT_ACCEPTED:
            self._young[connection] = now_s
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._through += 1
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._shown_out += 1
        elif connection in self._old:
            self._old.remove(connection)
        elif self._young.pop(connection, None) is not None:
            self._ended += 1
