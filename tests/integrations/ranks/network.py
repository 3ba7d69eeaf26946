"""Several hosts on one machine: network namespaces, joined by a bridge; each has an address of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec
import pytest

SUBNET = "10.213.77"


class Host(msgspec.Struct, frozen=True):
    """A namespace; `inside` begins a command that is to run in it."""

    name: str
    address: str
    interface: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command is put behind."""
        return ("ip", "netns", "exec", self.name)


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """So many hosts that reach each other and nothing else; skips where this process may not make them."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` command here (Debian: the package iproute2)")
    mark = f"tml{os.getpid()}"
    with ExitStack() as undo:
        _make(undo, ("ip", "link", "add", mark, "type", "bridge"), ("ip", "link", "delete", mark))
        _do("ip", "link", "set", mark, "up")
        made = [Host(f"{mark}-{number}", f"{SUBNET}.{number + 1}", f"e{number}") for number in range(count)]
        for number, host in enumerate(made):
            _make(undo, ("ip", "netns", "add", host.name), ("ip", "netns", "delete", host.name))
            outside = f"{mark}v{number}"
            _do("ip", "link", "add", outside, "type", "veth", "peer", "name", host.interface, "netns", host.name)
            _do("ip", "link", "set", outside, "master", mark, "up")
            _do(*host.inside, "ip", "address", "add", f"{host.address}/24", "dev", host.interface)
            for interface in ("lo", host.interface):
                _do(*host.inside, "ip", "link", "set", interface, "up")
        yield made


def _make(undo: ExitStack, make: tuple[str, ...], delete: tuple[str, ...]) -> None:
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"network namespaces are not permitted here: {done.stderr.strip()}")
    undo.callback(subprocess.run, delete, check=False)


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
