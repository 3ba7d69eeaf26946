"""Opens a dashboard's page as a browser does, and prints how often it was given something new until its run ended.

Imports little: it has to be there before a short run is over.
"""

from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit


def main(address: str) -> None:
    """Enter by the token in the address, and follow the page behind it."""
    parts = urlsplit(address)

    def ask(path: str, cookie: str = "") -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
        return connection.getresponse()

    entered = ask(f"{parts.path}?{parts.query}")
    cookie = (entered.getheader("set-cookie") or "").split(";")[0]
    page = (entered.getheader("location") or "/").rstrip("/")
    print(sum(event == "page" for event in events(ask(f"{page}/events", cookie))))


def events(response: http.client.HTTPResponse) -> Iterator[str]:
    """The names of the events that come, until there are no more."""
    while line := response.readline().decode():
        if line.startswith("event: "):
            yield line.removeprefix("event: ").strip()


if __name__ == "__main__":
    main(sys.argv[1])
