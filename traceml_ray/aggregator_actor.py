"""The actor that owns a run's aggregator: it starts it, gives out its ticket, and stops it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import ray

from traceml_core.core.run_folder import Ending, RunFolder
from traceml_core.core.settings import Settings
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.lifecycle import AggregatorHandle, start_aggregator
from traceml_core.runtime.run_opening import claim_run_folder, tell_ending
from traceml_core.transport.keys import Ticket

logger = get_error_logger("RayAggregatorActor")


class AggregatorActor:
    """Owns one aggregator, from its own start to `stop`. Where it dies, the aggregator reports by itself and ends."""

    def __init__(self, settings: dict[str, Any], several_nodes: bool) -> None:
        """Start the aggregator; where that fails, `opened` says why. Nobody has to wait for it.

        With `several_nodes` it listens on this node's address, else on loopback.
        """
        self._folder: RunFolder | None = None
        self._aggregator: AggregatorHandle | None = None
        self._refusal: OSError | None = None
        resolved = msgspec.convert(settings, Settings)
        host = _own_address() if several_nodes else None
        try:
            self._folder = claim_run_folder(resolved)
            # Ray kills an actor's children with it. Apart from it, the aggregator lives to write its report.
            self._aggregator = start_aggregator(self._folder, resolved, host=host, apart=True)
        except OSError as error:
            self._refusal = error
        else:
            self._aggregator.keep_by_thread()

    def opened(self) -> tuple[str, str | None]:
        """The run folder, and what is to be said of it beside where it is, if anything is.

        Raises:
            OSError: the aggregator could not be started; the message is for a person.
        """
        if self._refusal is not None or self._folder is None:
            raise self._refusal or OSError("there is no run folder")
        notice = None if self._aggregator is None else self._aggregator.dashboard_notice
        if notice is not None:
            notice = f"{self._folder.notice or f'recording to {self._folder.path}'}; {notice}"
        return str(self._folder.path), notice or self._folder.notice

    def ticket(self) -> Ticket | None:
        """What lets a worker into the run; null where there is none."""
        return None if self._aggregator is None else self._aggregator.ticket

    def stop(self, ending: Ending) -> bytes | None:
        """End the run; its summary as JSON, or None where it is not written within 5 s. Safe to call more than once."""
        if self._folder is None or self._aggregator is None:
            return None
        with fail_open(logger, "telling how the run ended"):
            tell_ending(self._folder, ending)
        self._aggregator.stop()
        return read_if_there(self._folder.final_summary_json)


def _own_address() -> str:
    """Where other nodes of the cluster reach this one."""
    address: str = ray.util.get_node_ip_address()
    return address


def read_if_there(path: Path) -> bytes | None:
    """What a file holds, or None where it is not there."""
    try:
        return path.read_bytes()
    except OSError:
        return None
