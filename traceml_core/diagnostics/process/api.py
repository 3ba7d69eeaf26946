"""The process diagnosis: rules over the context."""

from __future__ import annotations

from traceml_core.diagnostics.judgement import Diagnosis, judge, no_data, normal_issue
from traceml_core.diagnostics.process.context import ProcessContext
from traceml_core.diagnostics.process.policy import ProcessPolicy
from traceml_core.diagnostics.process.rules import RULES


def diagnose(context: ProcessContext | None, policy: ProcessPolicy) -> Diagnosis:
    """Judge the processes. A null context means that none was looked at."""
    if context is None:
        return no_data("process", "The training process was not sampled.", "See errors.log in the run folder.")
    normal = normal_issue("process", "Memory and CPU of the processes are as they should be.")
    return judge(RULES, context, policy, normal=normal)
