"""What ran: the facts of a run from its manifest, its ranks and its sections."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from traceml_core.core.run_folder import Manifest
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.history.reader import RankRecord
from traceml_core.reporting.section_spec import RunNumbers
from traceml_core.reporting.summary import ErrorSummary, Hardware, RunSummary
from traceml_core.telemetry.facts import RunFacts


class StoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run folder says of its run beside the rows."""

    folder: Path
    manifest: Manifest | None
    ranks: Sequence[RankRecord]
    shape: RunShape


def summarise_run(stored: StoredRun, numbers: RunNumbers, hardware: Hardware) -> RunSummary:
    """The run's facts; those that nobody told are null."""
    shape, manifest = stored.shape, stored.manifest
    facts = shape.facts or RunFacts(framework="manual")
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
        hardware=hardware,
        batch_size=facts.batch_size,
        accumulation=facts.accumulation,
        precision=facts.precision,
        loader=facts.loader,
        samples_per_s=numbers.samples_per_s,
        tokens_per_s=numbers.tokens_per_s,
        started_at=manifest.started_at if manifest else _started_at(stored.ranks),
        duration_s=max((rank.wall_ns for rank in shape.ranks), default=0) / 1e9,
        steps=numbers.steps,
    )


def _error(shape: RunShape) -> ErrorSummary | None:
    if shape.error is None or shape.status not in ("failed", "interrupted"):
        return None
    return ErrorSummary(**msgspec.structs.asdict(shape.error))


def _started_at(ranks: Sequence[RankRecord]) -> str:
    first_s = min((record.started_unix_ns for record in ranks), default=0) / 1e9
    return datetime.fromtimestamp(first_s, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
