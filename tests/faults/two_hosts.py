"""Two hosts on one machine: network namespaces with a cable (a veth pair) between them, that can be pulled."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys

ADDRESSES = ("10.203.7.1", "10.203.7.2")


class NotPermittedError(Exception):
    """This machine does not let the test make network namespaces; the message says why."""


class TwoHosts:
    """Made at once, gone with `close`. `prefix(host)` is what runs a command on one of them."""

    def __init__(self) -> None:
        """Make them.

        Raises:
            NotPermittedError: there is no `ip`, or it may not.
        """
        if not sys.platform.startswith("linux") or shutil.which("ip") is None:
            raise NotPermittedError("needs Linux and the command `ip` (iproute2)")
        self._names = [f"traceml-{secrets.token_hex(3)}-{host}" for host in range(2)]
        self._cable = f"tml{secrets.token_hex(3)}"
        try:
            for name in self._names:
                ip("netns", "add", name)
            cable = [f"{self._cable}{host}" for host in range(2)]
            ip(
                "link",
                "add",
                cable[0],
                "netns",
                self._names[0],
                "type",
                "veth",
                "peer",
                "name",
                cable[1],
                "netns",
                self._names[1],
            )
            for host, name in enumerate(self._names):
                ip("-n", name, "address", "add", f"{ADDRESSES[host]}/24", "dev", cable[host])
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "link", "set", cable[host], "up")
        except NotPermittedError:
            self.close()
            raise

    def prefix(self, host: int) -> tuple[str, ...]:
        """What to put in front of a command, so that it runs there."""
        return ("ip", "netns", "exec", self._names[host])

    def cut(self) -> None:
        """Pull the cable out of the second host."""
        ip("-n", self._names[1], "link", "set", f"{self._cable}1", "down")

    def heal(self) -> None:
        """Put it back."""
        ip("-n", self._names[1], "link", "set", f"{self._cable}1", "up")

    def close(self) -> None:
        """Take both hosts down; the cable goes with them."""
        for name in self._names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def ip(*arguments: str) -> None:
    """Run `ip`.

    Raises:
        NotPermittedError: it failed; the message is its own.
    """
    done = subprocess.run(
        ["ip", *arguments], capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    if done.returncode != 0:
        raise NotPermittedError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
