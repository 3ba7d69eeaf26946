from __future__ import annotations

import msgspec
import pytest

from traceml_core.diagnostics.model import Issue
from traceml_core.diagnostics.primary import primary_diagnosis
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.telemetry.messages import RunError


class Said(msgspec.Struct):
    diagnosis: Issue
    issues: list[Issue]


def issue(kind, severity="warning", impact=None, section="step_time"):
    return Issue(kind=kind, severity=severity, section=section, summary="", action="", impact_share=impact)


def section(*issues, state="NORMAL"):
    return Said(issues[0] if issues else issue(state, "info"), list(issues))


def primary(run=None, **sections):
    return primary_diagnosis(sections, run or RunShape()).kind


def failed(error_type):
    return RunShape(status="failed", error=RunError(error_type))


def test_severity_comes_first():
    sections = {"step_time": section(issue("INPUT_BOUND", impact=0.4)), "process": section(issue("CREEP", "critical"))}
    assert primary(**sections) == "CREEP"


def test_then_impact_with_null_as_nothing():
    sections = {"system": section(issue("A", impact=0.1)), "step_time": section(issue("B")), "process": section()}
    assert primary(**sections) == "A"


def test_then_the_order_of_sections_whatever_order_they_are_given_in():
    assert primary(system=section(issue("C")), process=section(issue("B")), step_memory=section(issue("A"))) == "A"


def test_then_the_order_of_rules():
    assert primary(step_time=section(issue("A"), issue("B"))) == "A"


def test_a_healthy_run_is_what_its_steps_say():
    sections = {
        "step_time": section(issue("COMPUTE_BOUND", "info")),
        "step_memory": section(issue("NO_GPU", "info")),
        "system": section(issue("HIGH_HOST_CPU", "info")),
    }
    assert primary(**sections) == "COMPUTE_BOUND"
    assert primary(**{**sections, "step_time": section()}) == "NORMAL"


def test_a_section_that_has_nothing_to_say_lets_another_speak():
    silent = {"step_time": section(state="NO_DATA"), "step_memory": section(issue("NO_GPU", "info"))}
    assert primary(**silent, system=section(issue("HIGH_HOST_CPU", "info"))) == "HIGH_HOST_CPU"
    assert primary(**silent, system=section()) == "NORMAL"
    assert primary(**silent) == "NO_DATA"


def test_a_section_that_could_not_be_built_is_no_silence():
    assert primary(step_time=section(issue("NO_DATA", "info")), process=section()) == "NO_DATA"
    assert primary(step_time=section(issue("NO_DATA", "info")), process=section(issue("B"))) == "B"
    assert primary(step_time=section(), process=section(issue("NO_DATA", "info"))) == "NORMAL"


@pytest.mark.parametrize(
    ("error_type", "kind"),
    [
        ("torch.OutOfMemoryError", "GPU_MEMORY_PRESSURE"),
        ("OutOfMemoryError", "GPU_MEMORY_PRESSURE"),
        ("MemoryError", "HOST_MEMORY_CREEP"),
        ("ValueError", "INPUT_BOUND"),
    ],
)
def test_what_ended_a_failed_run_comes_before_all_else(error_type, kind):
    sections = {
        "step_time": section(issue("INPUT_BOUND", "critical", 0.6)),
        "step_memory": section(issue("GPU_MEMORY_PRESSURE")),
        "process": section(issue("HOST_MEMORY_CREEP")),
    }
    assert primary(failed(error_type), **sections) == kind
    assert primary(**sections) == "INPUT_BOUND"


def test_a_primary_diagnosis_needs_a_section():
    with pytest.raises(ValueError, match="at least one section"):
        primary_diagnosis({}, RunShape())
