"""What the job holds on each host, and may: a limit is judged, and reached, on one host at a time."""

from __future__ import annotations

import msgspec
import numpy as np

from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.statistics.reduced import ReducedTable


class HostMemory(msgspec.Struct, frozen=True, kw_only=True):
    """The job's memory on the host of these ranks, in bytes; null is what was not measured there.

    `held_bytes` is the most that the ranks and their workers held beside the pages of mapped files: each rank's peak,
    added up. Pages that forked workers share with their parent count once for each, so it is never more than the most
    that was in use on the host. `used_bytes` is what was in use there last, `limit_bytes` what the job may use.
    """

    ranks: tuple[int, ...]
    held_bytes: int | None
    used_bytes: int | None
    limit_bytes: int | None

    @property
    def held_share(self) -> float | None:
        """What the processes held at most as a share of the host's limit."""
        return None if self.held_bytes is None or not self.limit_bytes else self.held_bytes / self.limit_bytes


def host_memory(memory: ReducedTable | None, system: ReducedTable | None, run: RunShape) -> tuple[HostMemory, ...]:
    """Every host that was looked at. The tables are in the order of rank, then time."""
    host_of = {rank.rank: rank.host for rank in run.ranks}
    ranks_of: dict[str, list[int]] = {}
    for rank in sorted({rank for table in (memory, system) if table is not None for rank in table.ranks}):
        ranks_of.setdefault(host_of.get(rank, ""), []).append(rank)
    return tuple(_one_host(ranks, _of_ranks(memory, ranks), _of_ranks(system, ranks)) for ranks in ranks_of.values())


def _one_host(ranks: list[int], memory: ReducedTable | None, system: ReducedTable | None) -> HostMemory:
    limit = used = most_used = None
    if system is not None:
        limit, used = system.smallest("memory_limit_bytes"), system.last("host_memory_bytes")
        most_used = system.largest("host_memory_bytes")
    held = None if memory is None else _held(memory)
    return HostMemory(
        ranks=tuple(ranks),
        held_bytes=_whole(held if held is None or not most_used else min(held, most_used)),
        used_bytes=_whole(used),
        limit_bytes=_whole(limit),
    )


def _held(memory: ReducedTable) -> float:
    together = memory.maxima["own_bytes"] + np.nan_to_num(memory.maxima["workers_own_bytes"])
    return sum(float(together[places].max()) for places in memory.by_rank().values())


def _of_ranks(table: ReducedTable | None, ranks: list[int]) -> ReducedTable | None:
    if table is None:
        return None
    places = np.flatnonzero(np.isin(table.rank, ranks))
    return table.take(places) if places.size else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
