"""Inputs of the diagnoses, as history would give them: columns of rows, and the shape of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from traceml_core.core.phases import STEP_PHASES, Phase
from traceml_core.diagnostics.run_shape import RankShape, RunShape
from traceml_core.history.reader import Columns
from traceml_core.statistics.reduced import ReducedTable, reduced
from traceml_core.telemetry.facts import LoaderFacts, RunFacts

START_NS = 1_700_000_000_000_000_000
IN_STEP = (*STEP_PHASES, Phase.UNATTRIBUTED)
HEALTHY_MS = {"input_wait": 0.3, "h2d": 0.05, "forward": 4.0, "backward": 4.2, "optimizer": 1.0, "unattributed": 0.3}


def tables_of(tables: Mapping[str, Columns]) -> dict[str, ReducedTable]:
    """The tables as a short run's history gives them: an entry a row."""
    return {name: reduced(name, columns) for name, columns in tables.items() if columns}


def step_rows(
    count: int = 200,
    *,
    rank: int = 0,
    incarnation: int = 1,
    first_step: int = 1,
    startup_ms: float = 800.0,
    teardown_ms: float = 20.0,
    samples: int | None = 8,
    tokens: int | None = None,
    device: Mapping[str, Any] | None = None,
    unmeasured: Sequence[str] = (),
    started_ns: int = START_NS,
    **phases_ms: Any,
) -> Columns:
    """A start-up record, `count` steps and a closing record of one rank.

    `forward_ms=4` and the like is a number or one per step; what is not given is healthy (in-step) or 0. `device` holds
    the device's milliseconds by phase key, of every step. Phases in `unmeasured` are null, their time unattributed.
    """
    given = {**HEALTHY_MS, **{name.removesuffix("_ms"): value for name, value in phases_ms.items()}}
    unknown = set(given) - {phase.key for phase in Phase}
    assert not unknown, unknown
    spent = np.zeros((len(Phase), count + 2))
    for phase in Phase:
        spent[phase, 1:-1] = given.get(phase.key, 0.0)
    spent[Phase.STARTUP, 0], spent[Phase.TEARDOWN, -1] = startup_ms, teardown_ms
    return _columns(spent, rank, incarnation, first_step, samples, tokens, device, unmeasured, started_ns)


def _columns(
    spent_ms: np.ndarray,
    rank: int,
    incarnation: int,
    first_step: int,
    samples: int | None,
    tokens: int | None,
    device: Mapping[str, Any] | None,
    unmeasured: Sequence[str],
    started_ns: int,
) -> Columns:
    rows = spent_ms.shape[1]
    spent_ns = np.rint(spent_ms * 1e6)
    interval = spent_ns.sum(axis=0).astype(np.int64)
    for key in unmeasured:
        phase = Phase[key.upper()]
        spent_ns[Phase.UNATTRIBUTED] += spent_ns[phase]
        spent_ns[phase] = np.nan
    step = np.arange(first_step - 1, first_step + rows - 1, dtype=np.float64)
    step[[0, -1]] = np.nan
    columns = {
        "rank": np.full(rows, rank, np.int64),
        "incarnation": np.full(rows, incarnation, np.int64),
        "seq": np.arange(rows, dtype=np.int64),
        "step": step,
        "started_ns": started_ns + np.cumsum(interval) - interval,
        "interval_ns": interval,
        "micro_batches": np.ones(rows, np.int64),
        "samples": np.where(np.isnan(step), np.nan, np.nan if samples is None else samples),
        "tokens": np.where(np.isnan(step), np.nan, np.nan if tokens is None else tokens),
    }
    columns |= {f"{phase.key}_ns": spent_ns[phase] for phase in Phase}
    for phase in IN_STEP:
        values = np.full(rows, np.nan)
        if device is not None:
            values[1:-1] = np.asarray(device.get(phase.key, 0.0)) * 1e6
        columns[f"device_{phase.key}_ns"] = values
    return columns


def join(*parts: Columns) -> Columns:
    """The rows of all parts, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def owner_rows(*owners: tuple[str, str, float, float, int], rank: int = 0) -> Columns:
    """Rows of (phase, owner, spent milliseconds, longest milliseconds, steps)."""
    phases, names, spent, longest, steps = zip(*owners, strict=True)
    return {
        "rank": np.full(len(owners), rank, np.int64),
        "phase": np.array(phases, object),
        "owner": np.array(names, object),
        "first_step": np.ones(len(owners)),
        "last_step": np.full(len(owners), 100.0),
        "steps": np.array(steps, np.int64),
        "spent_ns": (np.array(spent) * 1e6).astype(np.int64),
        "max_ns": (np.array(longest) * 1e6).astype(np.int64),
    }


def memory_rows(
    mebibytes: Sequence[float] | np.ndarray,
    *,
    steps: Sequence[float] | np.ndarray | None = None,
    rank: int = 0,
    incarnation: int = 1,
    every_s: float = 0.1,
    workers: Any = 0,
    workers_mebibytes: Sequence[float] | np.ndarray | None = None,
    started_ns: int = START_NS,
    **more: Any,
) -> Columns:
    """Rows of `process_memory`, one every `every_s`, ten steps apart unless `steps` are given."""
    count = len(mebibytes)
    steps = np.arange(count) * 10 + 1 if steps is None else np.asarray(steps)
    held = np.full(count, np.nan) if workers_mebibytes is None else np.asarray(workers_mebibytes) * 2.0**20
    return {
        "rank": np.full(count, rank, np.int64),
        "incarnation": np.full(count, incarnation, np.int64),
        "at_ns": started_ns + (np.arange(count) * every_s * 1e9).astype(np.int64),
        "step": steps.astype(np.int64),
        "rss_bytes": (np.asarray(mebibytes) * 2**20).astype(np.int64),
        "workers_rss_bytes": held,
        "workers": np.broadcast_to(np.asarray(workers, np.int64), (count,)),
        **more,
    }


def process_rows(
    cpu_percent: float = 100.0, *, count: int = 20, rank: int = 0, workers_cpu_percent: float | None = None
) -> Columns:
    """Rows of `process`, one a second."""
    return {
        "rank": np.full(count, rank, np.int64),
        "at_ns": START_NS + np.arange(count) * 10**9,
        "step": np.arange(count) * 100 + 1,
        "cpu_percent": np.full(count, cpu_percent),
        "threads": np.full(count, 8.0),
        "workers": np.zeros(count, np.int64),
        "workers_cpu_percent": np.full(count, np.nan if workers_cpu_percent is None else workers_cpu_percent),
        "gpu_memory_bytes": np.full(count, np.nan),
    }


def system_rows(
    count: int = 20,
    *,
    host_cpu_percent: float | None = 30.0,
    memory_gib: float | None = 4.0,
    limit_gib: float | None = 16.0,
    cpus: float | None = 8.0,
    rank: int = 0,
) -> Columns:
    """Rows of `system`, one a second."""
    return {
        "rank": np.full(count, rank, np.int64),
        "at_ns": START_NS + np.arange(count) * 10**9,
        "host_cpu_percent": _filled(count, host_cpu_percent),
        "host_memory_bytes": _filled(count, memory_gib, 2.0**30),
        "memory_limit_bytes": _filled(count, limit_gib, 2.0**30),
        "cpus": _filled(count, cpus),
    }


def gpu_rows(
    count: int = 20,
    *,
    utilization: float | None = 90.0,
    used_gib: float | None = 40.0,
    total_gib: float | None = 80.0,
    temperature_c: float | None = 60.0,
    temperature_limit_c: float | None = 90.0,
    power_w: float | None = 400.0,
    power_limit_w: float | None = 700.0,
    throttle_reasons: Any = 0,
    gpu_index: int = 0,
    rank: int = 0,
) -> Columns:
    """Rows of `gpu`, one a second."""
    return {
        "rank": np.full(count, rank, np.int64),
        "at_ns": START_NS + np.arange(count) * 10**9,
        "gpu_index": np.full(count, gpu_index, np.int64),
        "uuid": np.array([f"GPU-{gpu_index}"] * count, object),
        "name": np.array(["Made-up GPU"] * count, object),
        "gpu_utilization_percent": _filled(count, utilization),
        "gpu_memory_used_bytes": _filled(count, used_gib, 2.0**30),
        "gpu_memory_total_bytes": _filled(count, total_gib, 2.0**30),
        "gpu_temperature_c": _filled(count, temperature_c),
        "gpu_temperature_limit_c": _filled(count, temperature_limit_c),
        "gpu_power_w": _filled(count, power_w),
        "gpu_power_limit_w": _filled(count, power_limit_w),
        "throttle_reasons": _filled(count, throttle_reasons),
    }


def step_memory_rows(
    allocated_gib: Any = 10.0,
    *,
    count: int = 200,
    peak_gib: Any = 20.0,
    reserved_gib: float = 24.0,
    total_gib: float | None = 80.0,
    retries: Any = 0,
    rank: int = 0,
    incarnation: int = 1,
    first_step: int = 1,
    device_index: int = 0,
) -> Columns:
    """Rows of `step_memory`, one a step."""
    return {
        "rank": np.full(count, rank, np.int64),
        "incarnation": np.full(count, incarnation, np.int64),
        "step": np.arange(first_step, first_step + count),
        "device_index": np.full(count, device_index, np.int64),
        "allocated_bytes": _filled(count, allocated_gib, 2.0**30).astype(np.int64),
        "reserved_bytes": _filled(count, reserved_gib, 2.0**30).astype(np.int64),
        "peak_allocated_bytes": _filled(count, peak_gib, 2.0**30).astype(np.int64),
        "peak_reserved_bytes": _filled(count, reserved_gib, 2.0**30).astype(np.int64),
        "total_bytes": _filled(count, total_gib, 2.0**30),
        "allocation_retries": _filled(count, retries).astype(np.int64),
    }


def run_of(
    *tables: Columns,
    device: str | None = "cpu",
    loader: LoaderFacts | None = None,
    unmeasured: tuple[str, ...] = (),
    framework: str = "manual",
    hosts: Mapping[int, str] = {},
    **more: Any,
) -> RunShape:
    """The shape of a run whose wall time is what its step rows cover."""
    steps = next((table for table in tables if "interval_ns" in table), None)
    ranks = ()
    if steps is not None:
        ranks = tuple(
            RankShape(
                rank=int(rank),
                wall_ns=int(steps["interval_ns"][steps["rank"] == rank].sum()),
                host=hosts.get(int(rank), "a"),
            )
            for rank in np.unique(steps["rank"])
        )
    facts = RunFacts(framework=framework, device=device, loader=loader, unmeasured=unmeasured)
    return RunShape(ranks=ranks, world_size=max(len(ranks), 1), facts=facts, **more)


def _filled(count: int, value: Any, scale: float = 1.0) -> np.ndarray:
    if value is None:
        return np.full(count, np.nan)
    return np.broadcast_to(np.asarray(value, np.float64) * scale, (count,)).copy()
