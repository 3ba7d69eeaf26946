"""The listening socket of a run, bound by its owner: the endpoint is known at once and survives restarts."""

from __future__ import annotations

import socket

BACKLOG = 1024


def open_listener(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A bound and listening TCP socket. Its descriptor is not inherited by programs unless it is passed on.

    Raises:
        OSError: the address is not available.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def endpoint_of(listener: socket.socket) -> str:
    """The address that clients connect to."""
    host, port = listener.getsockname()[:2]
    return f"tcp://{host}:{port}"


def address_towards(host: str) -> str:
    """The address of this machine's interface that reaches `host`.

    Raises:
        OSError: the host is unknown or there is no way to it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 1))  # UDP: nothing is sent
        address: str = probe.getsockname()[0]
        return address
