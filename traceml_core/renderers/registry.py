"""Which sections the live view shows, in this order: the one place that a new renderer is added to."""

from __future__ import annotations

from traceml_core.renderers.process import PROCESS
from traceml_core.renderers.section_renderer import SectionRenderer
from traceml_core.renderers.step_memory import STEP_MEMORY
from traceml_core.renderers.step_time import STEP_TIME
from traceml_core.renderers.system import SYSTEM

RENDERERS: tuple[SectionRenderer, ...] = (
    STEP_TIME,
    STEP_MEMORY,
    PROCESS,
    SYSTEM,
)
