"""Builds the section step_time: its context, judged; and from the same context what is known of the run as a whole."""

from __future__ import annotations

from traceml_core.diagnostics.step_time.api import diagnose
from traceml_core.diagnostics.step_time.context import StepTimeContext, build_context
from traceml_core.diagnostics.step_time.policy import LIVE_STEP_TIME_POLICY, SUMMARY_STEP_TIME_POLICY
from traceml_core.diagnostics.step_time.step_table import step_table
from traceml_core.diagnostics.step_time.time_budget import time_budget
from traceml_core.reporting.section_parts import as_stored, section_of
from traceml_core.reporting.section_spec import BuiltSection, RunNumbers
from traceml_core.reporting.sections.step_time.model import StepTimeInputs
from traceml_core.reporting.summary import HistogramBin, Section, SeriesBlock, TimeBudget


def build(inputs: StepTimeInputs, live: bool) -> BuiltSection:
    """The section with its series, by the live policy while the run goes on, and the run's budget and throughput."""
    policy = LIVE_STEP_TIME_POLICY if live else SUMMARY_STEP_TIME_POLICY
    context = build_context(inputs.tables, inputs.run, policy, inputs.joined)
    diagnosis = diagnose(context, policy)
    if context is None:
        return BuiltSection(section_of(diagnosis, None, ()), _numbers_without_steps(inputs))
    said = section_of(diagnosis, context.metrics, context.ranks)
    section = Section(
        diagnosis=said.diagnosis,
        issues=said.issues,
        metrics=said.metrics,
        ranks=said.ranks,
        warmup_steps=context.warmup_steps,
        series=[as_stored(block, SeriesBlock) for block in context.series],
        distribution=[as_stored(one, HistogramBin) for one in context.distribution],
    )
    return BuiltSection(section, _numbers(context))


def _numbers(context: StepTimeContext) -> RunNumbers:
    return RunNumbers(
        steps=context.steps,
        redone_steps=context.redone_steps,
        samples_per_s=context.samples_per_s,
        tokens_per_s=context.tokens_per_s,
        budget=as_stored(context.budget, TimeBudget),
    )


def _numbers_without_steps(inputs: StepTimeInputs) -> RunNumbers:
    """A run that ended before its first step still spent its time somewhere."""
    table = step_table(inputs.tables["step_time"], SUMMARY_STEP_TIME_POLICY)
    budget = as_stored(time_budget(table, inputs.run), TimeBudget)
    return RunNumbers(steps=0, samples_per_s=None, tokens_per_s=None, budget=budget)
