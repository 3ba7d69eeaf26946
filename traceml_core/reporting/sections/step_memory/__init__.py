"""The section step_memory of the report: loader, builder, formatter, model."""

from traceml_core.reporting.section_spec import SectionSpec
from traceml_core.reporting.sections.step_memory.builder import build
from traceml_core.reporting.sections.step_memory.formatter import card_lines, table_lines
from traceml_core.reporting.sections.step_memory.loader import load

STEP_MEMORY = SectionSpec(name="step_memory", load=load, build=build, card_lines=card_lines, table_lines=table_lines)
