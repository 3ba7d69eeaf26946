"""The listening socket of a run, bound by its owner: the endpoint is known at once and survives restarts."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

BACKLOG = 1024
LOOPBACK = "127.0.0.1"
# Addresses of documentation (RFC 5737, RFC 3849): whatever way out there is, they lie on it, and nothing is sent.
ELSEWHERE = ("192.0.2.1", "2001:db8::1")


def open_listener(host: str = LOOPBACK, port: int = 0) -> socket.socket:
    """A bound and listening TCP socket. Its descriptor is not inherited by programs unless it is passed on.

    Raises:
        OSError: the address is not available.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def endpoint_of(listener: socket.socket) -> str:
    """The address that clients connect to."""
    host, port = listener.getsockname()[:2]
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def is_ipv6(endpoint: str) -> bool:
    """Whether an endpoint is an IPv6 one, which ZeroMQ has to be told."""
    return endpoint.startswith("tcp://[")


def address_in_job(environment: Mapping[str, str] = os.environ) -> str:
    """The address at which the other nodes of the job reach this machine: that of the interface towards MASTER_ADDR.

    The master itself may know its own name as loopback; others do not reach it there, so its way out counts.

    Raises:
        OSError: the master is unknown or there is no way to it.
    """
    master = environment.get("MASTER_ADDR", "")
    address = address_towards(master) if master else LOOPBACK
    if not _is_loopback(address) or master == "localhost" or _is_loopback(master):
        return address
    for elsewhere in ELSEWHERE:
        with suppress(OSError):
            return address_towards(elsewhere)
    return address


def address_towards(host: str) -> str:
    """The address of this machine's interface that reaches `host`; IPv4 where there are both.

    Raises:
        OSError: the host is unknown or there is no way to it.
    """
    known = socket.getaddrinfo(host, 1, type=socket.SOCK_DGRAM)
    failure = OSError(f"there is no way to {host}")
    for family, kind, protocol, _, place in sorted(known, key=lambda found: found[0] != socket.AF_INET):
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(place)  # UDP: nothing is sent
                return str(probe.getsockname()[0])
        except OSError as error:
            failure = error
    raise failure


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # a name
        return False
