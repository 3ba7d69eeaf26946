"""The step_time diagnosis: rules over the context."""

from __future__ import annotations

from traceml_core.diagnostics.judgement import Diagnosis, judge, no_data, normal_issue
from traceml_core.diagnostics.step_time.context import StepTimeContext
from traceml_core.diagnostics.step_time.policy import StepTimePolicy
from traceml_core.diagnostics.step_time.rules import RULES, TOO_FEW_STEPS


def diagnose(context: StepTimeContext | None, policy: StepTimePolicy) -> Diagnosis:
    """Judge the steps. A null context means that no step was recorded."""
    if context is None:
        action = "Check that training ran at least one step, and that a TraceMLCallback or trace_run marks its steps."
        return no_data("step_time", "No training step was recorded.", action)
    rules = RULES if context.judged_steps >= policy.minimum_steps else TOO_FEW_STEPS
    normal = normal_issue("step_time", "No part of a step stands out.")
    return judge(rules, context, policy, normal=normal)
