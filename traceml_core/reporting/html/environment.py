"""What ran where, and how well it was measured, as pairs of title and text."""

from __future__ import annotations

import msgspec

from traceml_core.core.units import byte_size, count, percent, rank_ranges, seconds
from traceml_core.reporting.summary import RunSummary, TelemetrySummary


class Fact(msgspec.Struct, frozen=True):
    """One line of a list: what it is about, and what it says."""

    title: str
    text: str


def environment_facts(run: RunSummary) -> list[Fact]:
    """Run, hardware, batch, loader, versions and labels; what is not known is left out."""
    hardware, loader = run.hardware, run.loader
    ranks = f"{count(run.world_size)} on {count(run.nodes)} node{'' if run.nodes == 1 else 's'}"
    facts = [
        ("run", run.run_id),
        ("framework", run.framework.replace("_", " ")),
        ("device", run.device),
        ("ranks", ranks),
        ("CPUs of the job", None if hardware.cpus is None else f"{hardware.cpus:g}"),
        ("memory of the job", None if hardware.memory_bytes is None else byte_size(hardware.memory_bytes)),
        ("GPUs", ", ".join(hardware.gpus) or None),
        ("batch size", None if run.batch_size is None else count(run.batch_size)),
        ("accumulation", None if run.accumulation is None else count(run.accumulation)),
        ("precision", run.precision),
    ]
    if loader is not None:
        facts += [
            ("loader workers", None if loader.num_workers is None else count(loader.num_workers)),
            ("prefetch factor", None if loader.prefetch_factor is None else count(loader.prefetch_factor)),
            ("persistent workers", {True: "yes", False: "no", None: None}[loader.persistent_workers]),
        ]
    facts += sorted(run.versions.items()) + sorted(run.labels.items())
    return [Fact(title, text) for title, text in facts if text]


def telemetry_facts(telemetry: TelemetrySummary) -> list[Fact]:
    """What was received and lost, what failed, and what measuring cost."""
    overhead = telemetry.overhead_us_per_step
    facts = [
        ("rows received", count(telemetry.rows_received)),
        ("rows lost", count(telemetry.rows_lost)),
        ("starts of ranks", count(telemetry.incarnations)),
        ("steps done again", count(telemetry.redone_steps) if telemetry.redone_steps else None),
        ("did not say how it ended", rank_ranges(telemetry.unended_ranks) if telemetry.unended_ranks else None),
        ("cost of measuring", None if overhead is None else f"{overhead:.0f} µs a step"),
        ("of the run", None if telemetry.overhead_share is None else percent(telemetry.overhead_share)),
        ("waited for the report", None if telemetry.report_s is None else seconds(telemetry.report_s)),
    ]
    failed = [(f"failed or refused: {edge}", count(times)) for edge, times in sorted(telemetry.failures.items())]
    return [Fact(title, text) for title, text in (*facts, *failed) if text]
