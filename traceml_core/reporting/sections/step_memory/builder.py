"""Builds the section step_memory: its context, judged."""

from __future__ import annotations

from traceml_core.diagnostics.step_memory.api import diagnose
from traceml_core.diagnostics.step_memory.context import build_context
from traceml_core.diagnostics.step_memory.policy import LIVE_STEP_MEMORY_POLICY, SUMMARY_STEP_MEMORY_POLICY
from traceml_core.reporting.section_parts import section_of
from traceml_core.reporting.section_spec import BuiltSection
from traceml_core.reporting.sections.step_memory.model import StepMemoryInputs


def build(inputs: StepMemoryInputs, live: bool) -> BuiltSection:
    """The section, by the live policy while the run goes on."""
    policy = LIVE_STEP_MEMORY_POLICY if live else SUMMARY_STEP_MEMORY_POLICY
    context = build_context(inputs.tables, inputs.run, policy)
    return BuiltSection(section_of(diagnose(context, policy), context.metrics, context.ranks, context.course))
