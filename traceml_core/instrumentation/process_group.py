"""What torch's process group says of this process: who it is, and the job's store that ranks find each other by."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from importlib import import_module
from typing import Any

from traceml_core.core.identity import RankIdentity
from traceml_core.core.launch_environment import identity_in, nodes_in

CONNECT_LIMIT_S = 10.0


def identity_in_job(environment: Mapping[str, str] = os.environ) -> RankIdentity:
    """This process as the process group names it; where there is none yet, as the environment does."""
    said = identity_in(environment)
    distributed = _distributed()
    if distributed is None:
        return said
    world_size = distributed.get_world_size()
    return RankIdentity(
        rank=distributed.get_rank(),
        local_rank=said.local_rank,
        world_size=world_size,
        nodes=nodes_in(world_size, environment),
    )


def job_store(environment: Mapping[str, str] = os.environ) -> Any | None:
    """The rendezvous store of the job; null where this process is alone, or there is none to be had.

    The process group's own store has no public name. Where torch renames it, or where there is no process group yet
    and torchrun keeps the store, a client of our own reaches the same server by its address.
    """
    distributed = _distributed()
    if distributed is not None:
        own = getattr(distributed.distributed_c10d, "_get_default_store", None)
        return own() if own is not None else _master_store(environment)
    return _master_store(environment) if environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else None


class MasterStore:
    """A client of the store at MASTER_ADDR. It connects when it is first used, on the thread that uses it."""

    def __init__(self, host: str, port: int) -> None:
        """Nothing is done yet."""
        self._host, self._port = host, port
        self._client: Any = None

    def set(self, key: str, value: str) -> None:
        """Put a value."""
        self._connected().set(key, value)

    def get(self, key: str) -> bytes:
        """Get a value that is there."""
        value: bytes = self._connected().get(key)
        return value

    def check(self, keys: list[str]) -> bool:
        """Whether all keys are there, without waiting."""
        return bool(self._connected().check(keys))

    def _connected(self) -> Any:
        if self._client is None:
            # `wait_for_workers`: a client that is no worker of the job must not be counted as one.
            limit = timedelta(seconds=CONNECT_LIMIT_S)
            make = import_module("torch.distributed").TCPStore
            self._client = make(self._host, self._port, is_master=False, wait_for_workers=False, timeout=limit)
        return self._client


def _master_store(environment: Mapping[str, str]) -> MasterStore | None:
    host, port = environment.get("MASTER_ADDR", ""), environment.get("MASTER_PORT", "")
    return MasterStore(host, int(port)) if host and port.isdecimal() else None


def _distributed() -> Any | None:
    """`torch.distributed`, where it is loaded and its process group is up."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed
