"""Host and GPUs, live: how busy they are and what they hold."""

from __future__ import annotations

from traceml_core.core.units import byte_size
from traceml_core.renderers.card_rows import card_rows
from traceml_core.renderers.section_renderer import SectionRenderer, SectionView
from traceml_core.reporting.card_layout import Look, row
from traceml_core.reporting.sections.system.formatter import card_lines
from traceml_core.reporting.summary import RunSummary, Section


def render(section: Section, run: RunSummary, look: Look) -> SectionView:
    """The card's facts; with room, the most memory that a GPU held."""
    used = section.metrics.get("gpu_memory_used_bytes")
    more = [] if used is None else [row("", f"at most {byte_size(used.max)} in use on one GPU", look, most=1)]
    return SectionView(card_rows(card_lines(section, run), look), more)


SYSTEM = SectionRenderer(name="system", render=render)
