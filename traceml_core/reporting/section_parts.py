"""From a domain's diagnosis and numbers to the section that is stored and shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from traceml_core.diagnostics import course as courses
from traceml_core.diagnostics.judgement import Diagnosis
from traceml_core.diagnostics.metrics import RankMeans
from traceml_core.diagnostics.model import Stat
from traceml_core.reporting.summary import CoursePoint, RankSummary, Section

T = TypeVar("T", bound=msgspec.Struct)


def section_of(
    diagnosis: Diagnosis,
    metrics: Mapping[str, Stat] | None,
    ranks: Iterable[RankMeans],
    course: Iterable[courses.CoursePoint] = (),
) -> Section:
    """The section that says this. `metrics` is null where nothing was measured."""
    return Section(
        diagnosis=diagnosis.primary,
        issues=list(diagnosis.issues),
        metrics=dict(metrics or {}),
        ranks=[as_stored(one, RankSummary) for one in ranks],
        course=[as_stored(point, CoursePoint) for point in course] or None,
    )


def as_stored(value: msgspec.Struct, stored: type[T]) -> T:
    """A diagnosis' struct as the summary's struct of the same fields."""
    return msgspec.convert(value, stored, from_attributes=True)
