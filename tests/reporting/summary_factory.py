"""Summaries made by hand, for tests of what is shown of them."""

from __future__ import annotations

from typing import Any

from traceml_core.core.phases import Phase
from traceml_core.diagnostics.model import Issue, Stat
from traceml_core.reporting.summary import (
    BudgetPart,
    ErrorSummary,
    FinalSummary,
    Hardware,
    RunSummary,
    Section,
    TelemetrySummary,
    TimeBudget,
)
from traceml_core.telemetry.facts import LoaderFacts

BUDGET_SHARES = {
    Phase.INPUT_WAIT: 0.61,
    Phase.FORWARD: 0.14,
    Phase.BACKWARD: 0.121,
    Phase.OPTIMIZER: 0.042,
    Phase.STARTUP: 0.031,
    Phase.VALIDATION: 0.024,
    Phase.H2D: 0.003,
    Phase.LOGGING: 0.002,
    Phase.CALLBACKS: 0.001,
    Phase.GRAD_SYNC: 0.0,
    Phase.UNATTRIBUTED: 0.021,
}


def make_issue(kind: str = "INPUT_BOUND", **fields: Any) -> Issue:
    given = {
        "severity": "critical",
        "section": "step_time",
        "summary": "Training waits for data: 62% of each step.",
        "action": "Raise num_workers from 0 to 4, then prefetch_factor; move decoding out of __getitem__.",
        "impact_share": 0.61,
        **fields,
    }
    return Issue(kind=kind, **given)


def make_stat(median: float = 24.1, **fields: Any) -> Stat:
    return Stat(**{"count": 380, "mean": median, "median": median, "p95": median * 1.3, "max": median * 2, **fields})


def make_error(**fields: Any) -> ErrorSummary:
    return ErrorSummary(
        **{"type": "ValueError", "message": "shapes do not match", "step": 57, "global_step": 57, **fields}
    )


def make_run(**fields: Any) -> RunSummary:
    given = {
        "run_id": "20260101T120000Z-train-digits-ab12",
        "name": "train-digits",
        "status": "completed",
        "error": None,
        "framework": "lightning",
        "versions": {"torch": "2.13.0"},
        "labels": {},
        "device": "cpu",
        "world_size": 1,
        "nodes": 1,
        "hardware": Hardware(cpus=4.0, memory_bytes=16 * 2**30, gpus=[]),
        "batch_size": 32,
        "accumulation": 1,
        "precision": "32-true",
        "loader": LoaderFacts(num_workers=0),
        "samples_per_s": 1328.0,
        "tokens_per_s": None,
        "started_at": "2026-01-01T12:00:00Z",
        "duration_s": 41.2,
        "steps": 400,
        **fields,
    }
    return RunSummary(**given)


def make_sections(primary: Issue) -> dict[str, Section]:
    quiet = {
        name: make_issue("NORMAL", section=name, severity="info", summary="", action="", impact_share=None)
        for name in ("step_memory", "process", "system")
    }
    metrics: dict[str, dict[str, Stat]] = {
        "step_time": {
            "step_time_ms": make_stat(24.1),
            "step_interval_ms": make_stat(24.9),
            "input_wait_ms": make_stat(15.0, share_of_step=0.62),
            "forward_ms": make_stat(3.4, share_of_step=0.14),
        },
        "step_memory": {},
        "process": {"rss_bytes": make_stat(6.4e8), "workers_rss_bytes": make_stat(9e8)},
        "system": {"host_cpu_percent": make_stat(43.0), "host_memory_bytes": make_stat(3e9)},
    }
    sections = {"step_time": Section(diagnosis=primary, issues=[primary], metrics=metrics["step_time"], ranks=[],
                                     warmup_steps=20, series=[])}  # fmt: skip
    for name, issue in quiet.items():
        sections[name] = Section(diagnosis=issue, issues=[issue], metrics=metrics[name], ranks=[])
    return sections


def make_summary(
    *,
    primary: Issue | None = None,
    also: tuple[Issue, ...] = (),
    shares: dict[Phase, float | None] = BUDGET_SHARES,  # type: ignore[assignment]
    coverage_share: float = 0.996,
    telemetry: dict[str, Any] | None = None,
    **run: Any,
) -> FinalSummary:
    """A run that waits for its data, unless told otherwise. `also` is added to the sections that it names."""
    primary = primary or make_issue()
    facts = make_run(**run)
    sections = make_sections(primary)
    for issue in also:
        sections[issue.section].issues.append(issue)
    parts = [
        BudgetPart(phase=phase.key, seconds=None if share is None else share * facts.duration_s, share=share)
        for phase, share in shares.items()
    ]
    return FinalSummary(
        run=facts,
        primary_diagnosis=primary,
        time_budget=TimeBudget(
            wall_s=facts.duration_s,
            clock="host",
            coverage_share=coverage_share,
            unattributed_share=shares.get(Phase.UNATTRIBUTED) or 0.0,
            parts=parts,
        ),
        sections=sections,
        telemetry=TelemetrySummary(
            **{
                "rows_received": 1234,
                "rows_lost": 0,
                "incarnations": 1,
                "failures": {},
                "overhead_us_per_step": 11.0,
                "overhead_share": 0.0004,
                "report_s": 0.2,
                **(telemetry or {}),
            }
        ),
    )
