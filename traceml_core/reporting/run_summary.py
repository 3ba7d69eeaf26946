"""What ran: the facts of a run from its manifest, its ranks' records and its rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import numpy as np

from traceml_core.core.run_folder import Manifest
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.history.reader import Columns, RankRecord
from traceml_core.reporting.read_once import TablesReadOnce
from traceml_core.reporting.summary import ErrorSummary, Hardware, RunSummary
from traceml_core.telemetry.facts import RunFacts


class StoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run folder says of its run beside the rows."""

    folder: Path
    manifest: Manifest | None
    ranks: Sequence[RankRecord]


def steps_done(steps: Columns) -> int:
    """How many different steps the run has done."""
    done = steps["step"] if steps else np.empty(0)
    return int(np.unique(done[~np.isnan(done)]).size)


def summarise_run(stored: StoredRun, shape: RunShape, tables: TablesReadOnce, warmup_steps: int) -> RunSummary:
    """The run's facts. Throughput counts whole step intervals after warm-up, over all ranks."""
    steps, facts, manifest = tables.columns("step_time"), shape.facts or RunFacts(framework="manual"), stored.manifest
    return RunSummary(
        run_id=manifest.run_id if manifest else stored.folder.name,
        name=manifest.name if manifest else stored.folder.name,
        status=shape.status,
        error=_error(shape),
        framework=facts.framework,
        versions=facts.versions,
        labels=manifest.labels if manifest else {},
        device=facts.device,
        world_size=shape.world_size,
        nodes=max((record.nodes for record in stored.ranks), default=1),
        hardware=_hardware(tables.columns("system"), tables.columns("gpu")),
        batch_size=facts.batch_size,
        accumulation=facts.accumulation,
        precision=facts.precision,
        loader=facts.loader,
        samples_per_s=_per_second(steps, "samples", warmup_steps),
        tokens_per_s=_per_second(steps, "tokens", warmup_steps),
        started_at=manifest.started_at if manifest else _started_at(stored.ranks),
        duration_s=max((rank.wall_ns for rank in shape.ranks), default=0) / 1e9,
        steps=steps_done(steps),
    )


def _error(shape: RunShape) -> ErrorSummary | None:
    if shape.error is None or shape.status not in ("failed", "interrupted"):
        return None
    return ErrorSummary(**msgspec.structs.asdict(shape.error))


def _per_second(steps: Columns, column: str, warmup_steps: int) -> float | None:
    """Samples or tokens of all ranks in a second of the ranks' mean time; None where steps did not show them."""
    if not steps:
        return None
    number = steps["step"]
    is_step = ~np.isnan(number)
    if not is_step.any():
        return None
    settled = is_step & (number > number[is_step].min() - 1 + warmup_steps)
    counted = settled & ~np.isnan(steps[column])
    interval_s = float(steps["interval_ns"][counted].sum()) / 1e9
    if interval_s <= 0:
        return None
    return float(steps[column][counted].sum()) / interval_s * np.unique(steps["rank"][counted]).size


def _hardware(system: Columns, gpus: Columns) -> Hardware:
    names = dict(zip(gpus["uuid"], gpus["name"], strict=True)) if gpus else {}
    cpus, memory = _last(system, "cpus"), _last(system, "memory_limit_bytes")
    return Hardware(cpus=cpus, memory_bytes=None if memory is None else int(memory), gpus=list(names.values()))


def _last(columns: Columns, name: str) -> float | None:
    """The last value of a column that was measured."""
    if not columns:
        return None
    measured = columns[name][~np.isnan(columns[name])]
    return float(measured[-1]) if measured.size else None


def _started_at(ranks: Sequence[RankRecord]) -> str:
    first_s = min((record.started_unix_ns for record in ranks), default=0) / 1e9
    return datetime.fromtimestamp(first_s, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
