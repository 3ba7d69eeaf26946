"""The section system of the report: loader, builder, formatter, model."""

from traceml_core.reporting.section_spec import SectionSpec
from traceml_core.reporting.sections.system.builder import build
from traceml_core.reporting.sections.system.formatter import card_lines, table_lines
from traceml_core.reporting.sections.system.loader import load

SYSTEM = SectionSpec(name="system", load=load, build=build, card_lines=card_lines, table_lines=table_lines)
