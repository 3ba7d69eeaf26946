"""The actor that owns a run's aggregator: it starts it, gives out its ticket, and stops it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import ray

from traceml_core.core.run_folder import RunFolder
from traceml_core.core.settings import Settings
from traceml_core.runtime.lifecycle import AggregatorHandle, start_aggregator
from traceml_core.runtime.run_opening import claim_run_folder
from traceml_core.transport.keys import Ticket


class AggregatorActor:
    """Owns one aggregator, from `start` to `stop`. Where the actor dies, the aggregator reports by itself and ends."""

    def __init__(self) -> None:
        """An actor without an aggregator."""
        self._folder: RunFolder | None = None
        self._aggregator: AggregatorHandle | None = None

    def start(self, settings: dict[str, Any], several_nodes: bool) -> tuple[str, str | None]:
        """Start the aggregator; the run folder, and why it is not the one that was asked for, if it is not.

        With `several_nodes` it listens on this node's address, else on loopback.

        Raises:
            OSError: it cannot be started; the message is for a person.
        """
        resolved = msgspec.convert(settings, Settings)
        folder = self._folder = claim_run_folder(resolved)
        host = _own_address() if several_nodes else None
        # Ray kills an actor's children with it. Apart from it, the aggregator lives to write its report.
        self._aggregator = start_aggregator(folder, resolved, host=host, apart=True)
        self._aggregator.keep_by_thread()
        return str(folder.path), folder.notice

    def ticket(self) -> Ticket | None:
        """What lets a worker into the run."""
        return None if self._aggregator is None else self._aggregator.ticket

    def stop(self) -> bytes | None:
        """End the run; its summary as JSON, or None where it is not written within 5 s. Safe to call more than once."""
        if self._folder is None or self._aggregator is None:
            return None
        self._aggregator.stop()
        return read_if_there(self._folder.final_summary_json)


def _own_address() -> str:
    """Where other nodes of the cluster reach this one."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def read_if_there(path: Path) -> bytes | None:
    """What a file holds, or None where it is not there."""
    try:
        return path.read_bytes()
    except OSError:
        return None
