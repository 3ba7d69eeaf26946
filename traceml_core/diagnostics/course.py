"""A section's numbers in the course of the run, as every surface draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from traceml_core.statistics.course import course_of
from traceml_core.statistics.reduced import ReducedTable

MOST_POINTS = 240
"""As many as a chart can show apart."""


class CoursePoint(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of the run. `at_s` counts from the first look, `step` is the steps done; null where not known.

    `metrics` are means over all ranks, sizes (`…_bytes`) the highest of any; null where not measured.
    """

    at_s: float | None
    step: float | None
    metrics: dict[str, float | None]


def course_in_time(tables: Sequence[tuple[ReducedTable | None, Sequence[str]]]) -> tuple[CoursePoint, ...]:
    """Columns of tables of looks, over time; with the step where a table has it."""
    course = course_of([(table, [*names, "step"]) for table, names in tables], "at_ns", MOST_POINTS)
    if course is None or not course.at.size:
        return ()
    steps = course.values.pop("step", [None] * course.at.size)
    at_s = (course.at - course.at[0]) / 1e9
    return tuple(
        CoursePoint(at_s=round(float(at), 3), step=_known(step), metrics=_metrics(course.values, place))
        for place, (at, step) in enumerate(zip(at_s, steps, strict=True))
    )


def course_in_steps(table: ReducedTable | None, names: Sequence[str]) -> tuple[CoursePoint, ...]:
    """Columns of a table that has a row a step, over steps."""
    course = course_of([(table, names)], "step", MOST_POINTS)
    if course is None:
        return ()
    return tuple(
        CoursePoint(at_s=None, step=float(step), metrics=_metrics(course.values, place))
        for place, step in enumerate(course.at)
    )


def _metrics(values: Mapping[str, np.ndarray], place: int) -> dict[str, float | None]:
    return {name: _known(column[place]) for name, column in values.items()}


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
