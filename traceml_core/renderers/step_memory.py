"""Device memory, live: the highest peak of a step, and each metric's worst rank."""

from __future__ import annotations

from traceml_core.core.units import byte_size, count
from traceml_core.renderers.card_rows import card_rows
from traceml_core.renderers.section_renderer import SectionRenderer, SectionView
from traceml_core.reporting.card_layout import Look, row
from traceml_core.reporting.sections.step_memory.formatter import card_lines
from traceml_core.reporting.summary import RunSummary, Section


def render(section: Section, run: RunSummary, look: Look) -> SectionView:
    """The card's fact; with room, which rank's peaks are highest."""
    more = []
    allocated = section.metrics.get("peak_allocated_bytes")
    if allocated is not None and allocated.worst_rank is not None:
        worst = f"highest on rank {count(allocated.worst_rank)}, {byte_size(allocated.worst_rank_mean)} a step"
        more = [row("", worst, look, most=1)]
    return SectionView(card_rows(card_lines(section, run), look), more)


STEP_MEMORY = SectionRenderer(name="step_memory", render=render)
