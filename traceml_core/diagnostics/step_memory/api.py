"""The step_memory diagnosis: rules over the context."""

from __future__ import annotations

from traceml_core.diagnostics.judgement import Diagnosis, judge, no_data, normal_issue
from traceml_core.diagnostics.step_memory.context import StepMemoryContext
from traceml_core.diagnostics.step_memory.policy import StepMemoryPolicy
from traceml_core.diagnostics.step_memory.rules import RULES


def diagnose(context: StepMemoryContext, policy: StepMemoryPolicy) -> Diagnosis:
    """Judge device memory."""
    if not context.memory and context.run.device != "cpu":
        return no_data("step_memory", "Device memory was not measured.", "Nothing to do, unless training ran on a GPU.")
    normal = normal_issue("step_memory", "Device memory is steady, and there is room left.")
    return judge(RULES, context, policy, normal=normal)
