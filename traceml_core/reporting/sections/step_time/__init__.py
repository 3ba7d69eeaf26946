"""The section step_time of the report: loader, builder, formatter, model."""

from traceml_core.reporting.section_spec import SectionSpec
from traceml_core.reporting.sections.step_time.builder import build
from traceml_core.reporting.sections.step_time.formatter import card_lines, table_lines
from traceml_core.reporting.sections.step_time.loader import load

STEP_TIME = SectionSpec(name="step_time", load=load, build=build, card_lines=card_lines, table_lines=table_lines)
