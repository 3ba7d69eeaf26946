"""Step times, live: the card's facts, then the last blocks of steps as a curve, and each rank in a line."""

from __future__ import annotations

from rich.text import Text

from traceml_core.core.phases import STEP_PHASES
from traceml_core.core.units import count, milliseconds
from traceml_core.renderers.card_rows import card_rows
from traceml_core.renderers.curve import curve
from traceml_core.renderers.section_renderer import SectionRenderer, SectionView
from traceml_core.reporting.card_layout import TITLE_COLUMNS, Look, row
from traceml_core.reporting.sections.step_time.formatter import card_lines
from traceml_core.reporting.summary import RankSummary, RunSummary, Section

CURVE_COLUMNS = 60
MOST_RANKS = 16
RANK_METRICS = ("step_time_ms", *(f"{phase.key}_ms" for phase in STEP_PHASES))
# The phases' own names are wider than a column.
RANK_HEADINGS = ("step", "waiting", "copy", "forward", "backward", "grad sync", "optimizer")
RANK_COLUMNS = 10


def render(section: Section, run: RunSummary, look: Look) -> SectionView:
    """Median, speed and ranks; with room a step's phases, a curve, and a table of ranks."""
    lines = card_rows(card_lines(section, run), look)
    more = [_phases(section, look), _curve(section, look), _ranks(section, look)]
    return SectionView(lines, more)


def _phases(section: Section, look: Look) -> list[Text]:
    """What an average step spends where."""
    spent = [(phase.label, section.metrics.get(f"{phase.key}_ms")) for phase in STEP_PHASES]
    parts = [f"{label} {milliseconds(stat.mean)}" for label, stat in spent if stat is not None and stat.max > 0]
    return row("A step", " · ".join(parts), look, most=2) if parts else []


def _curve(section: Section, look: Look) -> list[Text]:
    """The slowest rank's step interval over the last blocks, warm-up dim."""
    room = min(CURVE_COLUMNS, look.columns - TITLE_COLUMNS - 2)
    blocks = (section.series or [])[-room:]
    if len(blocks) < 2:
        return []
    values = [block.step_interval_ms for block in blocks]
    drawn = Text(curve(values, look), "cyan")
    warm = sum(block.warmup for block in blocks)
    drawn.stylize("dim", 0, warm)
    first, last = blocks[0].first_step, blocks[-1].first_step + blocks[-1].count - 1
    extent = f"{milliseconds(min(values))} to {milliseconds(max(values))}, steps {count(first)} to {count(last)}"
    return [*row("Lately", drawn, look, most=1), *row("", Text(look.shown(extent), "dim"), look, most=1)]


def _ranks(section: Section, look: Look) -> list[Text]:
    """Mean milliseconds of a step on each of the first ranks, where there are several."""
    if len(section.ranks) < 2:
        return []
    shown = section.ranks[:MOST_RANKS]
    lines = [Text(_cells("Rank", RANK_HEADINGS), "dim")]
    lines += [Text(_cells(count(rank.rank), _means(rank, look))) for rank in shown]
    if len(section.ranks) > len(shown):
        rest = f"and {count(len(section.ranks) - len(shown))} more; the row Ranks names the one furthest apart"
        lines += row("", Text(look.shown(rest), "dim"), look, most=1)
    return lines


def _means(rank: RankSummary, look: Look) -> tuple[str, ...]:
    return tuple(look.shown(milliseconds(rank.metrics.get(name))) for name in RANK_METRICS)


def _cells(title: str, texts: tuple[str, ...]) -> str:
    return f" {title:>{TITLE_COLUMNS - 3}}" + "".join(f"{text:>{RANK_COLUMNS}}" for text in texts)


STEP_TIME = SectionRenderer(name="step_time", render=render)
