"""The verdict: the diagnosis in brief, with plain numbers alone."""

from __future__ import annotations

import math

from summary_factory import make_issue, make_stat, make_summary

from traceml_core.reporting.verdict import verdict_of


def test_the_verdict_is_the_primary_diagnosis_in_brief():
    verdict = verdict_of(make_summary())

    assert (verdict.kind, verdict.severity) == ("INPUT_BOUND", "critical")
    assert verdict.summary == "Training waits for data: 62% of each step."
    assert verdict.action.startswith("Raise num_workers")


def test_its_metrics_are_plain_numbers_under_the_name_of_the_tool():
    metrics = verdict_of(make_summary()).metrics

    assert all(name.startswith("traceml/") and type(value) is float for name, value in metrics.items())
    assert metrics["traceml/forward_ms"] == 3.4
    assert metrics["traceml/step_time_ms"] == 24.1
    assert metrics["traceml/step_interval_ms"] == 24.9
    assert metrics["traceml/input_wait_share"] == 0.62
    assert metrics["traceml/samples_per_s"] == 1328.0
    assert metrics["traceml/rss_bytes"] == 1.28e9
    assert metrics["traceml/impact_share"] == 0.61


def test_what_was_not_measured_is_absent_rather_than_zero():
    summary = make_summary(primary=make_issue(impact_share=None), samples_per_s=None)
    summary.sections["step_time"].metrics["forward_ms"] = make_stat(math.nan)
    del summary.sections["process"]
    metrics = verdict_of(summary).metrics

    assert not {"traceml/impact_share", "traceml/samples_per_s", "traceml/forward_ms", "traceml/rss_bytes"} & set(
        metrics
    )
