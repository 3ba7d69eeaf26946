"""Device memory as text: the card's line and the table of peaks."""

from __future__ import annotations

from traceml_core.core.units import byte_size
from traceml_core.reporting.section_spec import CardLine
from traceml_core.reporting.stat_table import stat_table
from traceml_core.reporting.summary import RunSummary, Section

TABLE_METRICS = ("peak_allocated_bytes", "peak_reserved_bytes")


def card_lines(section: Section, run: RunSummary) -> list[CardLine]:
    """The highest peak of a step, allocated and reserved."""
    allocated = section.metrics.get("peak_allocated_bytes")
    if allocated is None:
        return []
    text = f"GPU peak {byte_size(allocated.max)}"
    reserved = section.metrics.get("peak_reserved_bytes")
    if reserved is not None:
        text += f" of {byte_size(reserved.max)} reserved"
    return [CardLine("Memory", text)]


def table_lines(section: Section) -> list[str]:
    """Peaks per step, as a table."""
    return stat_table(section, [(name, byte_size) for name in TABLE_METRICS])
