"""The verdict: the diagnosis in brief and the run's main numbers, for trainers' loggers and live consumers."""

from __future__ import annotations

import math

from traceml_core.core.phases import Phase
from traceml_core.reporting.summary import FinalSummary
from traceml_core.telemetry.messages import Verdict

PREFIX = "traceml/"


def verdict_of(summary: FinalSummary) -> Verdict:
    """The primary diagnosis and the means of a run's main metrics, under `traceml/…`; what was not measured is absent.

    Times in milliseconds per step after warm-up, memory in bytes at its highest, shares from 0 to 1.
    """
    issue = summary.primary_diagnosis
    named = {**_step_numbers(summary), **_memory_numbers(summary), **_run_numbers(summary)}
    return Verdict(
        kind=issue.kind,
        severity=issue.severity,
        summary=issue.summary,
        action=issue.action,
        metrics={
            f"{PREFIX}{name}": float(value)
            for name, value in named.items()
            if value is not None and math.isfinite(value)
        },
    )


def _step_numbers(summary: FinalSummary) -> dict[str, float | None]:
    section = summary.sections.get("step_time")
    metrics = section.metrics if section is not None else {}
    names = ["step_time_ms", "step_interval_ms", *(f"{phase.key}_ms" for phase in Phase)]
    numbers: dict[str, float | None] = {name: metrics[name].mean for name in names if name in metrics}
    waiting = metrics.get(f"{Phase.INPUT_WAIT.key}_ms")
    numbers["input_wait_share"] = waiting.share_of_step if waiting is not None else None
    return numbers


def _memory_numbers(summary: FinalSummary) -> dict[str, float | None]:
    found = {}
    for section_name, metric in (("process", "rss_bytes"), ("step_memory", "peak_allocated_bytes")):
        section = summary.sections.get(section_name)
        stat = section.metrics.get(metric) if section is not None else None
        found[metric] = stat.max if stat is not None else None
    return found


def _run_numbers(summary: FinalSummary) -> dict[str, float | None]:
    return {
        "samples_per_s": summary.run.samples_per_s,
        "tokens_per_s": summary.run.tokens_per_s,
        "impact_share": summary.primary_diagnosis.impact_share,
        "unattributed_share": summary.time_budget.unattributed_share,
    }
