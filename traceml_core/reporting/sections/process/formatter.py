"""The training processes as text: the card's lines and the table of their resources."""

from __future__ import annotations

from traceml_core.core.units import byte_size, rate
from traceml_core.reporting.section_spec import CardLine
from traceml_core.reporting.stat_table import Unit, stat_table
from traceml_core.reporting.summary import RunSummary, Section


def card_lines(section: Section, run: RunSummary) -> list[CardLine]:
    """The most memory that a process and its loader workers, or a watched command and its children, held."""
    parts = []
    rss = section.metrics.get("rss_bytes")
    if rss is not None:
        parts.append(f"process {byte_size(rss.max)}")
    workers = section.metrics.get("workers_rss_bytes")
    if workers is not None and workers.max > 0:
        whose = "its child processes" if run.is_watched else "loader workers"
        parts.append(f"{whose} {byte_size(workers.max)}")
    return [CardLine("Memory", " · ".join(parts))] if parts else []


def table_lines(section: Section) -> list[str]:
    """Memory and processor time of the processes, as a table."""
    return stat_table(section, TABLE)


def cpu(value: float | None) -> str:
    """Per cent of one core."""
    return f"{rate(value)} %"


TABLE: tuple[tuple[str, Unit], ...] = (
    ("rss_bytes", byte_size),
    ("workers_rss_bytes", byte_size),
    ("gpu_memory_bytes", byte_size),
    ("cpu_percent", cpu),
)
