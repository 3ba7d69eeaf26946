"""The live view: one calm screen of a run, in as many lines as the terminal has."""

from __future__ import annotations

import msgspec
from rich.text import Text

from traceml_core.core.units import count, milliseconds, seconds
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.renderers.registry import RENDERERS
from traceml_core.renderers.section_renderer import SectionView
from traceml_core.reporting.card import budget_lines, head_lines, notes, other_issue_lines, verdict_lines
from traceml_core.reporting.card_layout import Look, row, spread
from traceml_core.reporting.summary import FinalSummary


class Density(msgspec.Struct, frozen=True):
    """How much of the summary is shown: lines a sentence, phases with a bar of their own, other issues."""

    sentence_lines: int
    phases: int
    others: bool


# The fullest that fits is shown.
DENSITIES = (
    Density(8, 8, True),
    Density(3, 6, True),
    Density(2, 4, True),
    Density(2, 4, False),
    Density(2, 2, False),
    Density(1, 2, False),
)
# A person begins to wonder when numbers that come every two seconds have not changed for this long.
STALE_AFTER_S = 10.0
KEYS = "q or Ctrl-C leaves this view; the run goes on"

logger = get_error_logger("LiveView")


class Freshness(msgspec.Struct, frozen=True):
    """What is known of a run beside its summary: the seconds since that was new, and whether its owner is gone."""

    age_s: float
    owner_is_gone: bool = False


def screen_lines(summary: FinalSummary, fresh: Freshness, look: Look, lines: int) -> list[Text]:
    """Exactly `lines` lines: verdict, phases, sections, telemetry, and at the bottom how to leave."""
    room = lines - 1  # the footer's
    views = _section_views(summary, look)
    least = sum(len(view.lines) for view in views)
    for density in DENSITIES:
        above, below = _above(summary, look, density), _below(summary, look, density)
        if len(above) + least + len(below) <= room:
            break
    body = [*above, *_facts(views, room - len(above) - len(below)), *below]
    return [*_exactly(body, room), spread(Text(f" {KEYS}", "dim"), _news(fresh, look), look)]


def waiting_lines(name: str, fresh: Freshness, look: Look, lines: int) -> list[Text]:
    """The same screen before there is a first summary."""
    body = [
        Text.assemble((" TraceML  ", "bold"), (look.shown(name, 60), "bold")),
        Text(),
        Text(" Waiting for the first numbers."),
        Text(" They come within seconds of the first step, or of the start of a watched command.", "dim"),
    ]
    return [*_exactly(body, lines - 1), spread(Text(f" {KEYS}", "dim"), _news(fresh, look), look)]


def _above(summary: FinalSummary, look: Look, density: Density) -> list[Text]:
    """What ran, the verdict and the phases."""
    verdict = verdict_lines(summary, look, density.sentence_lines)
    budget = budget_lines(summary, look, density.phases)
    return [*head_lines(summary, look)[:1], *_apart(verdict, budget), Text()]


def _below(summary: FinalSummary, look: Look, density: Density) -> list[Text]:
    """Other issues, and how well all this is measured."""
    return [*(other_issue_lines(summary, look) if density.others else []), *_telemetry(summary, look)]


def _section_views(summary: FinalSummary, look: Look) -> list[SectionView]:
    views = []
    for renderer in RENDERERS:
        section = summary.sections.get(renderer.name)
        if section is not None:
            with fail_open(logger, f"drawing the section {renderer.name}"):
                views.append(renderer.render(section, summary.run, look))
    return views


def _facts(views: list[SectionView], room: int) -> list[Text]:
    """Every section's first lines, each followed by what more of it there is room for."""
    spare = room - sum(len(view.lines) for view in views)
    facts: list[Text] = []
    for view in views:
        facts += view.lines
        for block in view.more:
            if len(block) <= spare:
                facts += block
                spare -= len(block)
    return facts


def _telemetry(summary: FinalSummary, look: Look) -> list[Text]:
    """How well the run is measured, and what that costs; what has to be known of the numbers."""
    telemetry = summary.telemetry
    parts = [f"{count(telemetry.rows_received)} rows", f"{count(telemetry.rows_lost)} lost"]
    failed = sum(telemetry.failures.values())
    parts.append(f"{count(failed)} failures" if failed else "no failures")
    if telemetry.overhead_us_per_step is not None:
        parts.append(f"{milliseconds(telemetry.overhead_us_per_step / 1000)} a step")
    lines = row("Health", " · ".join(parts), look, most=1)
    for note in notes(summary):
        lines += row("Note", note, look, most=1)
    return lines


def _news(fresh: Freshness, look: Look) -> Text:
    if fresh.owner_is_gone:
        return Text(look.shown("its process is gone; its report is on its way"), "yellow")
    if fresh.age_s > STALE_AFTER_S:
        return Text(look.shown(f"no news for {seconds(round(fresh.age_s))}"), "yellow")
    return Text("live", "green")


def _apart(*blocks: list[Text]) -> list[Text]:
    """The blocks with an empty line before each."""
    return [line for block in blocks if block for line in (Text(), *block)]


def _exactly(body: list[Text], lines: int) -> list[Text]:
    """The first so many lines, or so many with empty ones at the end."""
    return body[:lines] + [Text()] * max(0, lines - len(body))
