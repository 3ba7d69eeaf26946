"""What follows from a row's own columns and cannot be had from their sums later: worked out before rolling up."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from traceml_core.core.phases import AROUND_STEP_PHASES, STEP_PHASES, Phase

Arrays = Mapping[str, np.ndarray]

IN_STEP = (*STEP_PHASES, Phase.UNATTRIBUTED)

# NVML's bits for clocks that are slowed down for heat or a weak power supply: hardware slowdown (0x8), software thermal
# (0x20), hardware thermal (0x40), power brake (0x80). The power cap (0x4) is normal under load.
SLOWED_CLOCKS = 0x8 | 0x20 | 0x40 | 0x80


def derive(table: str, columns: Arrays) -> Arrays:
    """The columns of a table that are reduced: its own, and what follows from them."""
    known = _DERIVED.get(table)
    return columns if known is None or not columns else known(columns)


def _step_time(columns: Arrays) -> Arrays:
    """The partition of each step: device time where its events were resolved, host time elsewhere.

    `host_<phase>_ns` is the host's time in rows that have device time as well, `samples_interval_ns` the interval of
    rows whose samples are known.
    """
    on_device = ~np.isnan(columns[f"device_{Phase.UNATTRIBUTED.key}_ns"])
    interval_ns = columns["interval_ns"].astype(np.float64)
    partition = {phase: columns[f"{phase.key}_ns"].astype(np.float64) for phase in Phase}
    host_ns = {f"host_{phase.key}_ns": np.where(on_device, partition[phase], np.nan) for phase in IN_STEP}
    if on_device.any():
        for phase in IN_STEP:
            partition[phase] = np.where(on_device, columns[f"device_{phase.key}_ns"], partition[phase])
    step_ns = np.zeros(interval_ns.size)
    for phase in IN_STEP:
        step_ns += np.nan_to_num(partition[phase])
    started_ns = columns["started_ns"].astype(np.float64)
    return {
        "step": columns["step"].astype(np.float64),
        "started_ns": started_ns,
        "ended_ns": started_ns + interval_ns,
        "interval_ns": interval_ns,
        "step_ns": step_ns,
        **{f"{phase.key}_ns": partition[phase] for phase in (*IN_STEP, *AROUND_STEP_PHASES)},
        **host_ns,
        "on_device": on_device.astype(np.float64),
        "samples": columns["samples"].astype(np.float64),
        "samples_interval_ns": np.where(np.isnan(columns["samples"]), np.nan, interval_ns),
        "tokens": columns["tokens"].astype(np.float64),
        "tokens_interval_ns": np.where(np.isnan(columns["tokens"]), np.nan, interval_ns),
    }


def _process(columns: Arrays) -> Arrays:
    busy = columns["cpu_percent"] + np.nan_to_num(columns["workers_cpu_percent"])
    return {**columns, "job_cpu_percent": busy}


def _process_memory(columns: Arrays) -> Arrays:
    """What the process and its workers hold together, and what of theirs does not mirror files."""
    own, workers = columns["rss_bytes"].astype(np.float64), columns["workers_rss_bytes"]
    return {
        **columns,
        "job_rss_bytes": own + np.nan_to_num(workers),
        "own_bytes": own - _or_zero(columns, "mapped_file_bytes"),
        "workers_own_bytes": workers - _or_zero(columns, "workers_mapped_file_bytes"),
    }


def _system(columns: Arrays) -> Arrays:
    return {**columns, "host_memory_share": columns["host_memory_bytes"] / columns["memory_limit_bytes"]}


def _gpu(columns: Arrays) -> Arrays:
    reasons = columns["throttle_reasons"].astype(np.float64)
    told = ~np.isnan(reasons)
    slowed = (np.where(told, reasons, 0).astype(np.int64) & SLOWED_CLOCKS) != 0
    return {
        **columns,
        "slowed": np.where(told, slowed, np.nan),
        "gpu_memory_share": columns["gpu_memory_used_bytes"] / columns["gpu_memory_total_bytes"],
        "gpu_power_share": columns["gpu_power_w"] / columns["gpu_power_limit_w"],
    }


def _or_zero(columns: Arrays, name: str) -> np.ndarray:
    return np.nan_to_num(columns[name].astype(np.float64)) if name in columns else np.zeros(1)


_DERIVED: dict[str, Callable[[Arrays], Arrays]] = {
    "step_time": _step_time,
    "process": _process,
    "process_memory": _process_memory,
    "system": _system,
    "gpu": _gpu,
}
