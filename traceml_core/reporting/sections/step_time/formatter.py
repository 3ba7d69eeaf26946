"""Step times as text: the card's lines and the table of phases."""

from __future__ import annotations

from traceml_core.core.phases import STEP_PHASES, Phase
from traceml_core.core.units import count, milliseconds, rate
from traceml_core.reporting.section_spec import CardLine
from traceml_core.reporting.stat_table import stat_table
from traceml_core.reporting.summary import RunSummary, Section
from traceml_core.statistics.ranked import median_rank

OWN_PHASES = tuple(phase for phase in (*STEP_PHASES, Phase.UNATTRIBUTED) if phase is not Phase.GRAD_SYNC)
TABLE_METRICS = ("step_interval_ms", "step_time_ms", *(f"{phase.key}_ms" for phase in Phase))


def card_lines(section: Section, run: RunSummary) -> list[CardLine]:
    """Median and 95th percentile of a step, warm-up set apart, and what the run got through in a second."""
    lines = []
    step = section.metrics.get("step_time_ms")
    if step is not None:
        parts = [f"{milliseconds(step.median)} median", f"{milliseconds(step.p95)} p95", _steps(section, run)]
        lines.append(CardLine("Step", " · ".join(parts)))
    speed = [
        f"{rate(value)} {unit}/s"
        for value, unit in ((run.samples_per_s, "samples"), (run.tokens_per_s, "tokens"))
        if value is not None
    ]
    if speed:
        lines.append(CardLine("Speed", " · ".join([*speed, *_batch(run)])))
    return lines + _ranks(section, run)


def table_lines(section: Section) -> list[str]:
    """Every phase that took time, as a table."""
    return stat_table(section, [(name, milliseconds) for name in TABLE_METRICS if _took_time(section, name)])


def _took_time(section: Section, name: str) -> bool:
    stat = section.metrics.get(name)
    return stat is not None and stat.max > 0


def _ranks(section: Section, run: RunSummary) -> list[CardLine]:
    """In which phase a rank is furthest from the median rank, and how many ranks were measured where not all were."""
    if run.world_size < 2:
        return []
    seen = len(section.ranks)
    parts = [f"{count(seen)} of {count(run.world_size)} measured"] if seen < run.world_size else []
    spreads: dict[float, str] = {}
    for phase in OWN_PHASES:
        stat = section.metrics.get(f"{phase.key}_ms")
        if stat is None or stat.worst_rank_mean is None:
            continue
        means = [mean for mean in (rank.metrics.get(f"{phase.key}_ms") for rank in section.ranks) if mean is not None]
        worst, median = stat.worst_rank_mean, median_rank(means)
        spreads[worst - median] = (
            f"furthest apart in {phase.label}: rank {stat.worst_rank} {milliseconds(worst)}, "
            f"median rank {milliseconds(median)}"
        )
    parts += [spreads[max(spreads)]] if spreads else []
    return [CardLine("Ranks", " · ".join(parts))] if parts else []


def _steps(section: Section, run: RunSummary) -> str:
    steps = f"{count(run.steps)} step{'' if run.steps == 1 else 's'}"
    return f"{steps}, {count(section.warmup_steps)} of warm-up set apart" if section.warmup_steps else steps


def _batch(run: RunSummary) -> list[str]:
    if run.batch_size is None:
        return []
    each = f" × {run.accumulation}" if (run.accumulation or 1) > 1 else ""
    ranks = f" × {run.world_size} ranks" if run.world_size > 1 else ""
    return [f"batch {count(run.batch_size)}{each}{ranks}"]
