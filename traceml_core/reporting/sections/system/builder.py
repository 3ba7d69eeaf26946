"""Builds the section system: its context, judged; and what hardware the run may use."""

from __future__ import annotations

from traceml_core.diagnostics.system.api import diagnose
from traceml_core.diagnostics.system.context import build_context
from traceml_core.diagnostics.system.policy import LIVE_SYSTEM_POLICY, SUMMARY_SYSTEM_POLICY
from traceml_core.reporting.section_parts import section_of
from traceml_core.reporting.section_spec import BuiltSection
from traceml_core.reporting.sections.system.model import SystemInputs
from traceml_core.reporting.summary import Hardware
from traceml_core.statistics.reduced import ReducedTable


def build(inputs: SystemInputs, live: bool) -> BuiltSection:
    """The section, by the live policy while the run goes on."""
    policy = LIVE_SYSTEM_POLICY if live else SUMMARY_SYSTEM_POLICY
    context = build_context(inputs.tables, inputs.run, policy)
    diagnosis = diagnose(context, policy)
    if context is None:
        return BuiltSection(section_of(diagnosis, None, ()))
    section = section_of(diagnosis, context.metrics, context.ranks, context.course)
    return BuiltSection(section, hardware=_hardware(inputs.tables["system"], inputs.tables["gpu"]))


def _hardware(system: ReducedTable | None, gpus: ReducedTable | None) -> Hardware:
    """What the job may use, as the samplers of host and GPUs saw it last."""
    names = {} if gpus is None else dict(zip(gpus.texts["uuid"].tolist(), gpus.texts["name"].tolist(), strict=True))
    memory = None if system is None else system.last("memory_limit_bytes")
    return Hardware(
        cpus=None if system is None else system.last("cpus"),
        memory_bytes=None if memory is None else int(memory),
        gpus=list(names.values()),
    )
