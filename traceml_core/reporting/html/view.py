"""What a page shows of a summary: texts and figures, in the order of the page. The templates only lay it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from traceml_core.core.phases import Phase
from traceml_core.core.units import count, measured, percent, rank_ranges, seconds
from traceml_core.diagnostics.judgement import weight
from traceml_core.diagnostics.model import Issue
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.reporting import final
from traceml_core.reporting.card import SMALL_SHARE, budget_total, facts_of, gain_of, notes, phase_label, risk_of
from traceml_core.reporting.html.course_figures import host_figures, memory_figures
from traceml_core.reporting.html.environment import Fact, environment_facts, telemetry_facts
from traceml_core.reporting.html.figure import Figure
from traceml_core.reporting.html.ranks import RanksView, ranks_view
from traceml_core.reporting.html.step_figures import step_figures
from traceml_core.reporting.html.table import Table, metric_table
from traceml_core.reporting.run_end import end_of_run
from traceml_core.reporting.summary import FinalSummary, TimeBudget

SECTION_TITLES = {
    "step_time": "Step time",
    "step_memory": "Device memory",
    "process": "Processes",
    "system": "Host and GPUs",
}
UNRECORDED = "not-recorded"

logger = get_error_logger("Page")


class BudgetRow(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the wall time. `colour` names a class of the style sheet; numbers are per cent of the bar."""

    label: str
    colour: str
    begin_percent: float
    width_percent: float
    share: str
    spent: str


class IssueView(msgspec.Struct, frozen=True, kw_only=True):
    """One finding in words."""

    label: str
    severity: str
    section: str
    summary: str
    action: str
    gain: str | None
    risk: str | None
    ranks: str | None
    evidence: list[Fact]


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the page that consists of charts and tables."""

    key: str
    title: str
    figures: list[Figure]
    tables: list[Table]


class PageView(msgspec.Struct, frozen=True, kw_only=True):
    """A whole page."""

    name: str
    subtitle: str
    status: str
    end: str | None
    verdict: IssueView
    facts: list[Fact]
    notes: list[str]
    budget: list[BudgetRow]
    budget_total: str
    unmeasured: str | None
    blocks: list[Block]
    findings: list[IssueView]
    environment: list[Fact]
    telemetry: list[Fact]


def page_view(summary: FinalSummary) -> PageView:
    """The page of a summary. A part that cannot be made is left out, and errors.log says why."""
    run, budget = summary.run, summary.time_budget
    primary = summary.primary_diagnosis
    return PageView(
        name=run.name,
        subtitle=_subtitle(summary),
        status=run.status,
        end=end_of_run(run),
        verdict=_issue_view(primary, budget.wall_s),
        facts=[Fact(title, text) for title, text in facts_of(summary).items()],
        notes=notes(summary),
        budget=_budget_rows(budget),
        budget_total=budget_total(summary),
        unmeasured=", ".join(phase_label(part.phase) for part in budget.parts if part.seconds is None) or None,
        blocks=_blocks(summary),
        findings=[_issue_view(issue, budget.wall_s) for issue in _findings(summary)],
        environment=environment_facts(run),
        telemetry=telemetry_facts(summary.telemetry),
    )


def moment(iso: str) -> str:
    """A time in ISO 8601, UTC, as people write it: to the second."""
    return f"{iso[:19].replace('T', ' ')} UTC" if iso else ""


def figures_of(view: PageView) -> list[Figure]:
    """Every chart of a page."""
    return [figure for block in view.blocks for figure in block.figures]


def _subtitle(summary: FinalSummary) -> str:
    run = summary.run
    place = run.framework.replace("_", " ") + (f" on {run.device}" if run.device else "")
    ranks = f"{count(run.world_size)} ranks" if run.world_size > 1 else ""
    steps = f"{count(run.steps)} step{'' if run.steps == 1 else 's'} in {seconds(run.duration_s)}"
    started = f"started {moment(run.started_at)}"
    return " · ".join(part for part in (place, ranks, steps, started) if part)


def _budget_rows(budget: TimeBudget) -> list[BudgetRow]:
    """The parts of the wall time, the largest first, then what nothing claims and what was not recorded."""
    parts = [part for part in budget.parts if part.share and part.phase != Phase.UNATTRIBUTED.key]
    parts.sort(key=lambda part: -(part.share or 0.0))
    named = [(phase_label(part.phase), _colour(part.phase), part.share or 0.0, part.seconds) for part in parts]
    unclaimed, lost = budget.unattributed_share, 1 - budget.coverage_share
    named.append((Phase.UNATTRIBUTED.label, _colour(Phase.UNATTRIBUTED.key), unclaimed, unclaimed * budget.wall_s))
    if lost >= SMALL_SHARE:
        named.append(("not recorded", UNRECORDED, lost, lost * budget.wall_s))
    rows, begin = [], 0.0
    for label, colour, share, spent_s in named:
        rows.append(
            BudgetRow(
                label=label,
                colour=colour,
                begin_percent=round(begin, 3),
                width_percent=round(100 * share, 3),
                share=percent(share),
                spent=seconds(spent_s),
            )
        )
        begin += 100 * share
    return rows


def _colour(phase: str) -> str:
    known = phase.upper() in Phase.__members__
    return phase.replace("_", "-") if known else Phase.UNATTRIBUTED.key


def _blocks(summary: FinalSummary) -> list[Block]:
    blocks = []
    for key, title, section_names, make in _BLOCKS:
        with fail_open(logger, f"drawing {title}"):
            tables = [
                metric_table(f"{SECTION_TITLES[name]}, in numbers", summary.sections[name])
                for name in section_names
                if name in summary.sections
            ]
            block = Block(
                key=key, title=title, figures=make(summary), tables=[one for one in tables if one is not None]
            )
            if block.figures or block.tables:
                blocks.append(block)
    with fail_open(logger, "drawing the ranks"):
        ranks = ranks_view(summary.sections.get("step_time"))
        if ranks is not None:
            blocks.insert(1, _ranks_block(ranks))
    return blocks


def _ranks_block(ranks: RanksView) -> Block:
    if ranks.figure is None:
        return Block(key="ranks", title="Ranks", figures=[], tables=[ranks.table])
    return Block(key="ranks", title="Ranks", figures=[ranks.figure], tables=[])


def _findings(summary: FinalSummary) -> list[Issue]:
    """Every finding, first things first; of a section without any, what it says instead."""
    named = dict.fromkeys((*(spec.name for spec in final.SECTIONS), *summary.sections))
    sections = [summary.sections[name] for name in named if name in summary.sections]
    found = [issue for section in sections for issue in section.issues or [section.diagnosis]]
    found.sort(key=weight)
    primary = summary.primary_diagnosis
    return [primary, *(issue for issue in found if issue != primary)]


def _issue_view(issue: Issue, wall_s: float) -> IssueView:
    return IssueView(
        label=issue.label,
        severity=issue.severity,
        section=SECTION_TITLES.get(issue.section, issue.section.replace("_", " ").capitalize()),
        summary=issue.summary,
        action=issue.action,
        gain=gain_of(issue, wall_s),
        risk=None if issue.risk is None else risk_of(issue.risk),
        ranks=rank_ranges(issue.ranks).capitalize() if issue.ranks else None,
        evidence=[Fact(name.replace("_", " "), _evidence(name, value)) for name, value in issue.evidence.items()],
    )


def _evidence(name: str, value: Any) -> str:
    """A number in its unit; lists and mappings in a line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, (int, float)):
        return measured(name, value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_evidence(_unit_name(name, str(key)), one)}" for key, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(_evidence(name, one) for one in value)
    return str(value)


def _unit_name(name: str, key: str) -> str:
    """Which name tells the unit of a mapping's value: the key, where it ends in one, else that of the mapping."""
    return key if "_" in key else name


_BLOCKS = (
    ("steps", "Steps", ("step_time",), step_figures),
    ("memory", "Memory", ("process", "step_memory"), memory_figures),
    ("host", "Host and GPUs", ("system",), host_figures),
)
