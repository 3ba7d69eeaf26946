"""The step_time rules, in order of priority. Adding one: its class in a file of this folder, its place in `RULES`."""

from __future__ import annotations

from traceml_core.diagnostics.judgement import Rule
from traceml_core.diagnostics.step_time.context import StepTimeContext
from traceml_core.diagnostics.step_time.policy import StepTimePolicy
from traceml_core.diagnostics.step_time.rules.across_ranks import (
    CommunicationBound,
    ComputeStraggler,
    H2dStraggler,
    InputStraggler,
    Straggler,
)
from traceml_core.diagnostics.step_time.rules.around_steps import (
    CallbackHeavy,
    CheckpointHeavy,
    LoggingHeavy,
    ValidationHeavy,
)
from traceml_core.diagnostics.step_time.rules.own_work import ComputeBound, LaunchBound, UnattributedHeavy, Warmup
from traceml_core.diagnostics.step_time.rules.waiting import H2dBound, InputBound, LoaderRestart

RULES: tuple[Rule[StepTimeContext, StepTimePolicy], ...] = (
    InputStraggler(),
    H2dStraggler(),
    ComputeStraggler(),
    LoaderRestart(),
    InputBound(),
    H2dBound(),
    CallbackHeavy(),
    CheckpointHeavy(),
    ValidationHeavy(),
    LoggingHeavy(),
    Straggler(),
    CommunicationBound(),
    LaunchBound(),
    UnattributedHeavy(),
    ComputeBound(),
)

TOO_FEW_STEPS: tuple[Rule[StepTimeContext, StepTimePolicy], ...] = (Warmup(),)
"""What is asked instead while there are too few steps to judge."""
