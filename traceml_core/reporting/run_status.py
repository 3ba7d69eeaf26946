"""The status of a run that nobody has closed, from what its ranks said and whether its owner can still be working."""

from __future__ import annotations

import time
from collections.abc import Sequence

from traceml_core.core.run_folder import Manifest
from traceml_core.diagnostics.run_shape import run_shape_of
from traceml_core.history.reader import RankRecord
from traceml_core.reporting.owner import owner_lives
from traceml_core.telemetry.messages import RunStatus


def status_of(manifest: Manifest | None, ranks: Sequence[RankRecord], now_s: float | None = None) -> RunStatus:
    """What the ranks said where they all have; else 'running' while the owner lives, and then 'interrupted'."""
    told = run_shape_of(ranks, None).status
    if ranks and told != "running":
        return told
    heard_s = max((record.last_seen_unix_ns for record in ranks), default=0) / 1e9
    silent_s = (time.time() if now_s is None else now_s) - heard_s
    return "running" if owner_lives(manifest, silent_s=silent_s) else "interrupted"
