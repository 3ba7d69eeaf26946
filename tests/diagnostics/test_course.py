"""Numbers in the course of a run: bounded, means for loads, the highest for sizes."""

from __future__ import annotations

import numpy as np
import pytest
from run_factory import GIB, make_run_folder

from traceml_core.diagnostics.course import MOST_POINTS, course_in_steps, course_in_time
from traceml_core.reporting.final import build_summary
from traceml_core.statistics.reduced import interleave, reduced
from traceml_core.statistics.sketch import sketch_of


def looks(at_s, rank=0, **columns):
    at_s = np.asarray(at_s, float)
    return reduced("looks", {"rank": np.full(at_s.size, rank), "at_ns": at_s * 1e9, **columns})


def both(first, second):
    return interleave(first, second, np.arange(first.size + second.size))


def test_a_course_has_at_most_so_many_points_however_many_looks_there_were():
    at_s = np.arange(100_000) / 10
    course = course_in_time([(looks(at_s, load_percent=np.full(at_s.size, 40.0)), ["load_percent"])])

    assert len(course) == MOST_POINTS
    assert {point.metrics["load_percent"] for point in course} == {40.0}
    assert [point.at_s for point in course] == sorted(point.at_s for point in course)


def test_ranks_count_by_their_mean_and_in_sizes_by_the_highest():
    one = looks([0, 100], rank=0, load_percent=np.array([10.0, 10.0]), rss_bytes=np.array([1e9, 1e9]))
    two = looks([0, 100], rank=1, load_percent=np.array([30.0, 30.0]), rss_bytes=np.array([3e9, 1e9]))
    course = course_in_time([(both(one, two), ["load_percent", "rss_bytes"])])

    assert [point.metrics for point in course] == [
        {"load_percent": 20.0, "rss_bytes": 3e9},
        {"load_percent": 20.0, "rss_bytes": 1e9},
    ]


def test_what_was_not_measured_is_null_and_a_stretch_without_looks_is_left_out():
    table = looks([0, 500, 1000], load_percent=np.array([10.0, np.nan, 30.0]), rss_bytes=np.array([1.0, 2.0, 3.0]))
    course = course_in_time([(table, ["load_percent", "rss_bytes"])])

    assert [point.metrics["load_percent"] for point in course] == [10.0, None, 30.0]
    assert [point.at_s for point in course] == pytest.approx([0, 500, 1000], abs=5)


def test_without_a_table_or_without_values_there_is_no_course():
    assert course_in_time([(None, ["load_percent"])]) == ()
    assert course_in_steps(None, ["peak_allocated_bytes"]) == ()
    assert course_in_time([(looks([0, 1], load_percent=np.full(2, np.nan)), ["load_percent"])]) == ()


def test_a_runs_sections_tell_their_course(tmp_path, assert_valid_summary):
    folder = make_run_folder(
        tmp_path,
        steps=400,
        ranks=2,
        rss_bytes=lambda step: GIB + step * 1e6,
        gpu_peak_bytes=lambda number: 30 * GIB + number,
    )
    summary = build_summary(folder)
    assert_valid_summary(summary)
    memory = summary.sections["process"].course
    device = summary.sections["step_memory"].course

    assert memory[-1].metrics["rss_bytes"] == max(point.metrics["rss_bytes"] for point in memory)
    assert memory[-1].step == pytest.approx(400, abs=15)
    assert 1 <= device[0].step <= 3
    assert device[-1].metrics["peak_allocated_bytes"] == 30 * GIB + 399
    assert {point.metrics["host_cpu_percent"] for point in summary.sections["system"].course} == {40.0}
    assert summary.sections["step_time"].course is None


def test_a_histogram_counts_every_value_once_in_bins_that_follow_each_other():
    values = np.random.default_rng(0).lognormal(2.0, 0.5, 10_000)
    bins = sketch_of(np.append(values, np.zeros(7))).histogram(60)

    assert len(bins) <= 60
    assert bins[0] == (0.0, 0.0, 7)
    assert sum(count for *_, count in bins) == 10_007
    assert all(upper == pytest.approx(lower) for (_, upper, _), (lower, _, _) in zip(bins[1:], bins[2:], strict=False))
    assert bins[1][0] < values.min() <= values.max() < bins[-1][1]
