"""Asking a dashboard over a real socket, and following its events."""

from __future__ import annotations

import http.client
import json
import socket
import time
from urllib.parse import parse_qs, urlsplit

LIMIT_S = 30.0


class Answer:
    """What came back."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.text = response.read().decode()


class Visitor:
    """Somebody with the address of a dashboard, or with a part of it."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.host, self.port, self.path = parts.hostname, parts.port, parts.path
        self.token = parse_qs(parts.query)["token"][0]
        self.cookie = f"traceml_{self.port}={self.token}"

    def get(self, path: str, *, method: str = "GET", host: str | None = None, cookie: str | None = None) -> Answer:
        """Ask for a path, as it is given, with the cookie unless another (or an empty one) is given."""
        connection = self._ask(path, method, host, self.cookie if cookie is None else cookie)
        with connection:
            return Answer(_response(connection, method))

    def events(self, path: str):
        """The events of a page, one by one, as (name, data), for as long as they come."""
        connection = self._ask(path, "GET", None, self.cookie)
        with connection:
            response = _response(connection, "GET")
            assert response.status == 200, response.read()
            name = ""
            while line := response.readline().decode().rstrip("\r\n") or (not response.isclosed() and "\n"):
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield name, json.loads(line.removeprefix("data: "))

    def _ask(self, path: str, method: str, host: str | None, cookie: str) -> socket.socket:
        # Not http.client's own request: it would not send a path or a host that is none.
        connection = socket.create_connection((self.host, self.port), LIMIT_S)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host or f'{self.host}:{self.port}'}", "Connection: close"]
        connection.sendall("\r\n".join([*lines, *([f"Cookie: {cookie}"] if cookie else []), "", ""]).encode())
        return connection


def _response(connection: socket.socket, method: str) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    return response


def events_within(events, seconds: float):
    """The next event, and how long it took to come."""
    began_s = time.monotonic()
    event = next(events)
    assert time.monotonic() - began_s < seconds
    return event
