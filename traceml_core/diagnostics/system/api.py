"""The system diagnosis: rules over the context."""

from __future__ import annotations

from traceml_core.diagnostics.judgement import Diagnosis, judge, no_data, normal_issue
from traceml_core.diagnostics.system.context import SystemContext
from traceml_core.diagnostics.system.policy import SystemPolicy
from traceml_core.diagnostics.system.rules import RULES


def diagnose(context: SystemContext | None, policy: SystemPolicy) -> Diagnosis:
    """Judge the hosts and GPUs. A null context means that none was looked at."""
    if context is None:
        return no_data("system", "The host was not sampled.", "See errors.log in the run folder.")
    return judge(RULES, context, policy, normal=normal_issue("system", "Host and GPUs have room left."))
