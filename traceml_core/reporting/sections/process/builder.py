"""Builds the section process: its context, judged."""

from __future__ import annotations

from traceml_core.diagnostics.process.api import diagnose
from traceml_core.diagnostics.process.context import build_context
from traceml_core.diagnostics.process.policy import LIVE_PROCESS_POLICY, SUMMARY_PROCESS_POLICY
from traceml_core.reporting.section_parts import section_of
from traceml_core.reporting.section_spec import BuiltSection
from traceml_core.reporting.sections.process.model import ProcessInputs


def build(inputs: ProcessInputs, live: bool) -> BuiltSection:
    """The section, by the live policy while the run goes on."""
    policy = LIVE_PROCESS_POLICY if live else SUMMARY_PROCESS_POLICY
    context = build_context(inputs.tables, inputs.run, policy)
    diagnosis = diagnose(context, policy)
    if context is None:
        return BuiltSection(section_of(diagnosis, None, ()))
    return BuiltSection(section_of(diagnosis, context.metrics, context.ranks, context.course))
