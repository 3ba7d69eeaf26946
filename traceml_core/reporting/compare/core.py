"""Builds a comparison from the final summaries of two sides, and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from traceml_core.reporting.compare.changes import compared_metrics
from traceml_core.reporting.compare.comparability import differences
from traceml_core.reporting.compare.metric_row import ComparedSection
from traceml_core.reporting.compare.model import ComparedRun, Comparison
from traceml_core.reporting.compare.policy import COMPARE_POLICY
from traceml_core.reporting.compare.sections import COMPARED_SECTIONS
from traceml_core.reporting.compare.verdict import deciding_metric
from traceml_core.reporting.compare.wording import action, headline, reasons
from traceml_core.reporting.plain_text import one_line
from traceml_core.reporting.summary import FinalSummary


def compare(
    a: Sequence[FinalSummary],
    b: Sequence[FinalSummary],
    margin_share: float = COMPARE_POLICY.margin_share,
    sections: Sequence[ComparedSection] = COMPARED_SECTIONS,
) -> Comparison:
    """Set the runs of B against those of A; each side has at least one.

    `margin_share` is the change that does not matter, as a share of A.
    """
    metrics = [metric for section in sections for metric in compared_metrics(section, a, b, margin_share)]
    decider = deciding_metric(metrics, trains=not all(one.run.is_watched for one in (*a, *b)))
    verdict = "INCONCLUSIVE" if decider is None or decider.verdict is None else decider.verdict
    unlike = differences([one.run for one in a], [one.run for one in b])
    return Comparison(
        verdict=verdict,
        headline=headline(decider, metrics),
        reasons=reasons(verdict, decider, metrics, margin_share),
        action=action(verdict, decider, unlike, min(len(a), len(b))),
        margin_share=margin_share,
        like_for_like=not any(difference.weighty for difference in unlike),
        differences=unlike,
        a=[_run(one) for one in a],
        b=[_run(one) for one in b],
        metrics=metrics,
    )


def _run(summary: FinalSummary) -> ComparedRun:
    section = summary.sections.get("step_time")
    return ComparedRun(
        run_id=one_line(summary.run.run_id),
        name=one_line(summary.run.name),
        status=summary.run.status,
        steps=summary.run.steps,
        warmup_steps=None if section is None else section.warmup_steps,
    )
