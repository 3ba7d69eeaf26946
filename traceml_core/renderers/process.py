"""The training processes, live: their memory, and how busy they are."""

from __future__ import annotations

from traceml_core.core.units import byte_size, rate
from traceml_core.renderers.card_rows import card_rows
from traceml_core.renderers.section_renderer import SectionRenderer, SectionView
from traceml_core.reporting.card_layout import Look, row
from traceml_core.reporting.sections.process.formatter import card_lines
from traceml_core.reporting.summary import RunSummary, Section


def render(section: Section, run: RunSummary, look: Look) -> SectionView:
    """The card's fact; with room, processor time and GPU memory."""
    parts = []
    cpu, gpu = section.metrics.get("cpu_percent"), section.metrics.get("gpu_memory_bytes")
    if cpu is not None:
        parts.append(f"{rate(cpu.mean)} % of one core")
    if gpu is not None:
        parts.append(f"{byte_size(gpu.max)} of GPU memory")
    more = [row("Process", " · ".join(parts), look, most=1)] if parts else []
    return SectionView(card_rows(card_lines(section, run), look), more)


PROCESS = SectionRenderer(name="process", render=render)
