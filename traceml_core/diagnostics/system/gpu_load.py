"""The GPUs of a run: what each did, and which of those that its ranks can see they train on."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.statistics.reduced import ReducedTable


class GpuLoad(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU during training. `rank` is the rank whose host it is in; nulls were not told by its driver.

    `temperature_c` is the 95th percentile, the others are means. `throttled_share` is the share of looks at which its
    clocks were slowed for heat or power supply.
    """

    rank: int
    index: int
    name: str
    samples: int
    utilization_percent: float | None
    memory_share: float | None
    temperature_c: float | None
    temperature_limit_c: float | None
    power_share: float | None
    throttled_share: float | None


def gpus_in_use(loads: Sequence[GpuLoad], memory: ReducedTable | None, run: RunShape) -> tuple[GpuLoad, ...]:
    """Those that the run trains on: on each host the devices that its ranks name in `step_memory`.

    Where none names any, the busiest ones, as many as the host has ranks; all of them where its ranks are not known.
    """
    host_of = {rank.rank: rank.host for rank in run.ranks}
    named = _named_devices(memory, host_of)
    in_use: list[GpuLoad] = []
    for host in dict.fromkeys(host_of.get(load.rank, "") for load in loads):
        here = [load for load in loads if host_of.get(load.rank, "") == host]
        mine = [load for load in here if load.index in named.get(host, ())]
        in_use += mine or _busiest(here, list(host_of.values()).count(host) or len(here))
    return tuple(in_use)


def _named_devices(memory: ReducedTable | None, host_of: dict[int, str]) -> dict[str, set[int]]:
    named: dict[str, set[int]] = {}
    if memory is not None:
        for rank, places in memory.by_rank().items():
            devices = np.unique(memory.minima["device_index"][places]).astype(int).tolist()
            named.setdefault(host_of.get(rank, ""), set()).update(devices)
    return named


def _busiest(loads: Sequence[GpuLoad], most: int) -> list[GpuLoad]:
    busiest = sorted(loads, key=lambda load: -(load.utilization_percent or 0.0))[:most]
    return [load for load in loads if load in busiest]
