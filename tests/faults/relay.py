"""A wire that a test can cut: it hands on what a rank and the aggregator say to each other, or does not."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress

LOOK_S = 0.02


class Relay:
    """Listens on a port of its own and connects to another one. `silence` swallows nothing and delivers nothing."""

    def __init__(self, port: int) -> None:
        """Hand on to `port` of this machine."""
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._is_silent = threading.Event()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """Where ranks connect to."""
        return f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def silence(self) -> None:
        """As if the cable were pulled: nothing arrives any more, and nobody is told."""
        self._is_silent.set()

    def heal(self) -> None:
        """Hand on again."""
        self._is_silent.clear()

    def reset(self) -> None:
        """Cut all connections, so that both ends notice; new ones are let through."""
        for one in list(self._pairs):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut everything for good."""
        self._is_closed.set()
        self._thread.join()
        for one in (self._listener, *self._pairs):
            one.close()

    def _run(self) -> None:
        while not self._is_closed.is_set():
            if self._is_silent.wait(0):
                self._is_closed.wait(LOOK_S)
                continue
            for one in select.select([self._listener, *self._pairs], [], [], LOOK_S)[0]:
                if one is self._listener:
                    self._accept()
                elif one in self._pairs:
                    self._hand_on(one)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._port))
        except OSError:
            near.close()
            return
        self._pairs |= {near: far, far: near}

    def _hand_on(self, one: socket.socket) -> None:
        other = self._pairs[one]
        try:
            data = one.recv(65536)
            other.sendall(data)
        except OSError:
            data = b""
        if not data:
            for end in (one, other):
                self._pairs.pop(end, None)
                end.close()
