"""The terminal card: one calm screen that says what is true of a run, then what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from rich.text import Text

from traceml_core.core.phases import STEP_PHASES, Phase
from traceml_core.core.units import byte_size, count, percent, seconds
from traceml_core.diagnostics.judgement import weight
from traceml_core.diagnostics.model import Issue, Risk
from traceml_core.diagnostics.step_time.policy import SUMMARY_STEP_TIME_POLICY
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.reporting import final
from traceml_core.reporting.card_layout import TITLE_COLUMNS, Look, bar, indented, look_for, row, spread, to_text
from traceml_core.reporting.recorded_ranks import missing_ranks_note, recorded_ranks
from traceml_core.reporting.run_end import end_of_run
from traceml_core.reporting.summary import BudgetPart, FinalSummary, TimeBudget

BADGE_STYLES = {"info": "black on green", "warning": "black on yellow", "critical": "white on red"}
MOST_PHASES = 8
MOST_SENTENCE_LINES = 8
MOST_OTHER_ISSUES = 3
MOST_NOTE_LINES = 3
MOST_RANKS = 8
SMALL_SHARE = 0.005
LABEL_COLUMNS = 17
NUMBER_COLUMNS = 18
IN_STEP_KEYS = frozenset(phase.key for phase in STEP_PHASES)

# What begins with this in `telemetry.failures` was said by somebody else, and not taken.
REFUSED = "refused."

logger = get_error_logger("Card")


def render_card(
    summary: FinalSummary,
    *,
    columns: int = 80,
    color: bool = False,
    unicode: bool | None = None,
    style: Literal["full", "line", "off"] = "full",
    folder: str | None = None,
) -> str:
    """The summary for a terminal of `columns` columns, ending in a newline; empty for the style `off`.

    `unicode` allows symbols and block bars; by default they go with colour, so that plain output is ASCII but for
    the user's own names. `folder` is shown as the place of the full files, exactly as given.
    """
    look = look_for(columns, color, unicode)
    if style == "off":
        return ""
    if style == "line":
        return _line(summary, look, folder)
    blocks = [
        head_lines(summary, look),
        verdict_lines(summary, look),
        budget_lines(summary, look),
        _facts(summary, look, folder),
    ]
    lines: list[Text] = []
    for block in blocks:
        lines += [*block, Text()] if block else []
    return to_text(lines[:-1], look)


def _line(summary: FinalSummary, look: Look, folder: str | None) -> str:
    issue = summary.primary_diagnosis
    end = end_of_run(summary.run)
    parts = [issue.label.upper(), *([look.shown(end, 100)] if end else []), look.shown(issue.summary, 160)]
    between = " – " if look.symbols else " - "
    return f"TraceML: {between.join([*parts, *([folder] if folder else [])])}\n"


def head_lines(summary: FinalSummary, look: Look) -> list[Text]:
    """What ran, for how long; and when so, that it failed or was interrupted, where, with which error."""
    run = summary.run
    place = "" if run.is_watched else run.framework.replace("_", " ") + (f" on {run.device}" if run.device else "")
    ranks = f"{count(run.world_size)} ranks" if run.world_size > 1 else ""
    where = ", ".join(filter(None, (place, ranks)))
    left = Text.assemble((" TraceML  ", "bold"), (look.shown(run.name, 60), "bold"), (f"  {where}", "dim"))
    steps = f"{count(run.steps)} step{'' if run.steps == 1 else 's'} in "
    right = Text(f"{'' if run.is_watched else steps}{seconds(run.duration_s)}")
    lines = [spread(left, right, look)]
    end = end_of_run(run)
    if end:
        tone = {"failed": "bold red", "interrupted": "bold yellow"}.get(run.status, "bold")
        lines += indented(Text(look.shown(end, 400), tone), 2, look)
    return lines


def verdict_lines(summary: FinalSummary, look: Look, most: int = MOST_SENTENCE_LINES) -> list[Text]:
    """The primary diagnosis, what to do next and what that would gain; each sentence in at most `most` lines."""
    issue = summary.primary_diagnosis
    label = issue.label.upper()
    badge = (f" {label} ", BADGE_STYLES[issue.severity]) if look.color else f" [{label}]"
    lines = [Text.assemble(badge, (f"  {issue.severity}" if issue.severity != "info" else "", "dim"))]
    lines += indented(Text(look.shown(issue.summary)), most, look)
    if issue.action:
        lines += row("Next", issue.action, look, most=most, title_style="bold")
    gain = gain_of(issue, summary.time_budget.wall_s)
    if gain:
        lines += row("Gain", gain, look, title_style="bold")
    if issue.risk is not None:
        lines += row("Risk", risk_of(issue.risk), look, title_style="bold")
    return lines


def risk_of(risk: Risk) -> str:
    """What will end the run, and when, in words."""
    return f"out of memory, at {byte_size(risk.limit_bytes)}, in about {count(risk.steps_left)} steps"


def gain_of(issue: Issue, wall_s: float) -> str | None:
    """What mending it would give back, in words; null where that is nothing to speak of."""
    share = issue.impact_share
    if share is None or share < SMALL_SHARE:
        return None
    is_short = wall_s < SUMMARY_STEP_TIME_POLICY.short_run_s
    text = f"up to {percent(share)} of the {'time after warm-up' if is_short else 'run'}"
    return text + (f": {1 / (1 - share):.1f}× as fast at best" if 0.05 <= share <= 0.95 else "")


def budget_lines(summary: FinalSummary, look: Look, most: int = MOST_PHASES) -> list[Text]:
    """A bar for each of the `most` phases that took most time, then what nothing claims and what was not recorded."""
    budget = summary.time_budget
    if not any(part.seconds for part in budget.parts):
        return []
    shown, rest = _shown_parts(budget, most)
    total = Text(f"of {budget_total(summary)}", "dim")
    lines = [spread(Text(" Where the time went", "bold"), total, look)]
    for part in shown:
        style = "cyan" if part.phase in IN_STEP_KEYS else "blue"
        lines.append(_bar_row(phase_label(part.phase), part.seconds or 0.0, part.share or 0.0, style, look))
    if rest:
        spent_s, share = sum(part.seconds or 0.0 for part in rest), sum(part.share or 0.0 for part in rest)
        lines.append(_bar_row("the rest", spent_s, share, "blue", look))
    lines += _honest_rows(budget, look)
    return lines


def budget_total(summary: FinalSummary) -> str:
    """What the parts of the budget are parts of."""
    ranks = len(recorded_ranks(summary))
    mean = f", mean of {count(ranks)} ranks" if ranks > 1 else ""
    return f"{seconds(summary.time_budget.wall_s)}{mean}"


def _honest_rows(budget: TimeBudget, look: Look) -> list[Text]:
    """What nothing claims, what was not recorded, and which phases could not be told apart."""
    unclaimed, lost = budget.unattributed_share, 1 - budget.coverage_share
    lines = [_bar_row(Phase.UNATTRIBUTED.label, unclaimed * budget.wall_s, unclaimed, "bright_black", look)]
    if lost >= SMALL_SHARE:
        lines.append(_bar_row("not recorded", lost * budget.wall_s, lost, "bright_black", look))
    missing = [phase_label(part.phase) for part in budget.parts if part.seconds is None]
    if missing:
        said = f"Not measured here, so unattributed: {', '.join(missing)}."
        lines += indented(Text(look.shown(said), "dim"), 1, look)
    return lines


def _shown_parts(budget: TimeBudget, most: int) -> tuple[list[BudgetPart], list[BudgetPart]]:
    """The parts that get a bar of their own, and those too small for one, which share the last."""
    timed = [part for part in budget.parts if (part.seconds or 0) > 0 and part.phase != Phase.UNATTRIBUTED.key]
    timed.sort(key=lambda part: -(part.seconds or 0))
    large = [part for part in timed if (part.share or 0) >= SMALL_SHARE][:most]
    small = timed[len(large) :]
    return (timed, []) if len(small) == 1 else (large, small)


def _bar_row(label: str, spent_s: float, share: float, style: str, look: Look) -> Text:
    room = look.columns - 1 - LABEL_COLUMNS - NUMBER_COLUMNS
    line = Text(f" {label[: LABEL_COLUMNS - 1]:{LABEL_COLUMNS}}")
    drawn = bar(share, room, look)
    line.append(drawn, style)
    line.append(" " * (room - len(drawn)))
    line.append(f"{percent(share):>6}{seconds(spent_s):>12}")
    return line


def phase_label(key: str) -> str:
    """A phase's name for people; one that a later version knows goes by its key."""
    known = Phase.__members__.get(key.upper())
    return known.label if known is not None else key.replace("_", " ")


def facts_of(summary: FinalSummary) -> dict[str, str]:
    """What the sections have to tell in a line: each title once, in the order of the sections."""
    facts: dict[str, list[str]] = {}
    for spec in final.SECTIONS:
        section = summary.sections.get(spec.name)
        if section is not None:
            with fail_open(logger, f"drawing the section {spec.name}"):
                for fact in spec.card_lines(section, summary.run):
                    facts.setdefault(fact.title, []).append(fact.text)
    return {title: " · ".join(texts) for title, texts in facts.items()}


def _facts(summary: FinalSummary, look: Look, folder: str | None) -> list[Text]:
    """Step time, speed, memory and host in a line each; other issues; where the files are."""
    lines = [line for title, text in facts_of(summary).items() for line in row(title, text, look)]
    lines += other_issue_lines(summary, look)
    lines += [line for note in notes(summary) for line in row("Note", note, look, most=MOST_NOTE_LINES)]
    if folder:
        lines.append(Text(f" {'Files':{TITLE_COLUMNS}}", "dim").append(folder, "default not dim"))
    return lines


def other_issue_lines(summary: FinalSummary, look: Look) -> list[Text]:
    """A line for each other issue that is worth one."""
    lines: list[Text] = []
    for number, issue in enumerate(_others(summary)):
        text = Text(look.shown(f"{issue.label}: {issue.summary}"))
        text.stylize("bold", 0, len(issue.label))
        lines += row("Also" if number == 0 else "", text, look, most=1)
    return lines


def _others(summary: FinalSummary) -> list[Issue]:
    """What else is worth a line: warnings and worse, what would give time back, and sections without data."""
    primary = summary.primary_diagnosis
    found = [
        issue
        for spec in final.SECTIONS
        if spec.name in summary.sections
        for issue in summary.sections[spec.name].issues
    ]
    worth = [
        issue
        for issue in found
        if issue != primary and (issue.severity != "info" or issue.impact_share or issue.kind == "NO_DATA")
    ]
    return sorted(worth, key=weight)[:MOST_OTHER_ISSUES]


def notes(summary: FinalSummary) -> list[str]:
    """What a reader of the numbers must know: what they miss, and what was refused or failed."""
    telemetry = summary.telemetry
    missing = missing_ranks_note(summary)
    said = [] if missing is None else [missing]
    if telemetry.rows_lost:
        total = telemetry.rows_lost + telemetry.rows_received
        said.append(f"{count(telemetry.rows_lost)} of {count(total)} rows were lost; the numbers miss them")
    if telemetry.redone_steps:
        said.append(f"{count(telemetry.redone_steps)} steps were done again after a restart; their last doing counts")
    elif telemetry.incarnations > summary.run.world_size:
        starts, ranks = count(telemetry.incarnations), count(summary.run.world_size)
        said.append(f"Ranks were started anew in this run ({starts} starts, {ranks} ranks); no step was done twice")
    if telemetry.unended_ranks and summary.run.status in ("completed", "failed"):
        said.append(f"{_ranks(telemetry.unended_ranks)} did not say how it ended; its last seconds may be missing")
    refused = {edge: times for edge, times in telemetry.failures.items() if edge.startswith(REFUSED)}
    if refused:
        said.append(f"Refused at the run's port: {_times(refused)}; SECURITY.md says who may speak")
    failed = {edge: times for edge, times in telemetry.failures.items() if edge not in refused}
    if failed:
        said.append(f"TraceML itself failed at {_times(failed)}; errors.log says why")
    return said


def _times(failures: Mapping[str, int]) -> str:
    return ", ".join(f"{edge.removeprefix(REFUSED)} {count(times)}×" for edge, times in sorted(failures.items()))


def _ranks(ranks: Sequence[int]) -> str:
    named = ", ".join(map(str, ranks[:MOST_RANKS]))
    more = f" and {count(len(ranks) - MOST_RANKS)} more" if len(ranks) > MOST_RANKS else ""
    return f"{'Rank' if len(ranks) == 1 else 'Each of ranks'} {named}{more}"
