"""The primary diagnosis: the first thing to say about a run, over all its sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from traceml_core.diagnostics.judgement import severity_rank
from traceml_core.diagnostics.model import Issue
from traceml_core.diagnostics.run_shape import RunShape

SECTION_ORDER = ("step_time", "step_memory", "process", "system")

_ENDED_BY = {
    "OutOfMemoryError": (
        "GPU_MEMORY_CREEP",
        "ALLOCATOR_RETRIES",
        "GPU_MEMORY_PRESSURE",
        "GPU_MEMORY_RESERVED_OVERHANG",
    ),
    "MemoryError": ("HOST_MEMORY_CREEP", "HIGH_PROCESS_MEMORY", "HIGH_HOST_MEMORY"),
}
"""Kinds that explain the error which ended a run, by the error's type."""

_SILENT = ("NO_GPU", "NO_DATA")
"""Kinds of a section that has nothing to say about the run; another section speaks first. That a section could not be
built is among its issues, though, and is no silence: NORMAL of the others would not be the whole truth."""


class JudgedSection(Protocol):
    """A section of a summary: its own diagnosis, and every finding, first things first."""

    @property
    def diagnosis(self) -> Issue:
        """What the section says first."""
        ...

    @property
    def issues(self) -> Sequence[Issue]:
        """What its rules found; empty where all is well."""
        ...


def primary_diagnosis(sections: Mapping[str, JudgedSection], run: RunShape) -> Issue:
    """The first of all issues: what ended a failed run; severity; impact (null as 0); section; the rules' order.

    Where no section found anything, what the first section says that has something to say.

    Raises:
        ValueError: there are no sections.
    """
    if not sections:
        raise ValueError("a primary diagnosis needs at least one section")
    named = [name for name in dict.fromkeys((*SECTION_ORDER, *sections)) if name in sections]
    candidates = [(issue, _is_silent(issue, sections[name])) for name in named for issue in _said_by(sections[name])]
    error = run.error if run.status == "failed" else None
    ended_by = _ENDED_BY.get(error.type.rpartition(".")[2], ()) if error is not None else ()
    return min(candidates, key=lambda candidate: _place(candidate[0], candidate[1], ended_by))[0]


def _said_by(section: JudgedSection) -> Sequence[Issue]:
    return section.issues or (section.diagnosis,)


def _is_silent(issue: Issue, section: JudgedSection) -> bool:
    return issue.kind in _SILENT and not (issue.kind == "NO_DATA" and section.issues)


def _place(issue: Issue, is_silent: bool, ended_by: tuple[str, ...]) -> tuple[bool, int, float, bool]:
    """What issues of all sections are sorted by; the order of candidates decides among equals."""
    explains = issue.kind in ended_by
    return not explains, severity_rank(issue.severity), -(issue.impact_share or 0.0), is_silent
