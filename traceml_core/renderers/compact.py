"""A run in one plain line: for the training terminal, and for a live view that is no terminal."""

from __future__ import annotations

from traceml_core.core.units import byte_size, count, milliseconds, percent, rate, seconds
from traceml_core.reporting.plain_text import ascii_symbols, one_line
from traceml_core.reporting.summary import FinalSummary

MEMORY = (("step_memory", "peak_allocated_bytes", "GPU"), ("process", "rss_bytes", "RSS"))


def compact_line(summary: FinalSummary) -> str:
    """The verdict so far and the main numbers, in ASCII but for letters of other scripts."""
    issue = summary.primary_diagnosis
    gain = f" (up to {percent(issue.impact_share)} to gain)" if issue.impact_share else ""
    numbers = ", ".join([*_progress(summary), *_memory(summary)])
    return ascii_symbols(one_line(f"{issue.label.upper()}{gain} | {numbers}"))


def _progress(summary: FinalSummary) -> list[str]:
    run, section = summary.run, summary.sections.get("step_time")
    parts = [f"{count(run.steps)} steps in {seconds(run.duration_s)}" if run.steps else seconds(run.duration_s)]
    step = section.metrics.get("step_time_ms") if section is not None else None
    if step is not None:
        parts.append(f"{milliseconds(step.median)} a step")
    if run.samples_per_s is not None:
        parts.append(f"{rate(run.samples_per_s)} samples/s")
    return parts


def _memory(summary: FinalSummary) -> list[str]:
    parts = []
    for section_name, metric, title in MEMORY:
        section = summary.sections.get(section_name)
        stat = section.metrics.get(metric) if section is not None else None
        if stat is not None:
            parts.append(f"{title} {byte_size(stat.max)}")
    return parts
