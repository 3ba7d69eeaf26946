"""The compared sections, in the order in which they are shown."""

from __future__ import annotations

from traceml_core.reporting.compare.metric_row import ComparedSection
from traceml_core.reporting.compare.sections import process, step_memory, step_time, system

COMPARED_SECTIONS = (
    ComparedSection("step_time", step_time.METRICS),
    ComparedSection("step_memory", step_memory.METRICS),
    ComparedSection("process", process.METRICS),
    ComparedSection("system", system.METRICS),
)
