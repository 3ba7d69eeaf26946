"""The section process of the report: loader, builder, formatter, model."""

from traceml_core.reporting.section_spec import SectionSpec
from traceml_core.reporting.sections.process.builder import build
from traceml_core.reporting.sections.process.formatter import card_lines, table_lines
from traceml_core.reporting.sections.process.loader import load

PROCESS = SectionSpec(name="process", load=load, build=build, card_lines=card_lines, table_lines=table_lines)
