"""How well a run was measured, and what measuring cost it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from traceml_core.history.reader import RankRecord
from traceml_core.reporting.summary import TelemetrySummary


def summarise_telemetry(
    ranks: Sequence[RankRecord],
    own_failures: Mapping[str, int],
    *,
    steps: int,
    redone_steps: int,
    wall_s: float,
) -> TelemetrySummary:
    """Rows, losses, failures by edge (ranks, aggregator and report together), overhead per step of the dearest rank.

    `ranks` are in the order in which they came. `steps`, `redone_steps` and `wall_s` are the run's; `overhead_share` is
    null where the overhead was not told. `report_s` is left to whoever had the report made.
    """
    failures: Counter[str] = Counter(own_failures)
    for record in ranks:
        failures.update(record.failures)
    last = {record.rank: record for record in ranks}
    told = [record.overhead_ns_per_step for record in ranks if record.overhead_ns_per_step is not None]
    overhead_ns = max(told, default=None)
    return TelemetrySummary(
        rows_received=sum(record.rows_received for record in ranks),
        rows_lost=sum(record.rows_dropped for record in ranks),
        incarnations=len(ranks),
        failures=dict(failures),
        overhead_us_per_step=None if overhead_ns is None else overhead_ns / 1e3,
        overhead_share=None if overhead_ns is None or wall_s <= 0 else overhead_ns * steps / 1e9 / wall_s,
        report_s=None,
        redone_steps=redone_steps,
        unended_ranks=sorted(rank for rank, record in last.items() if record.status == "running"),
    )
