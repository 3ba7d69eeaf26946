"""What the step_time rules may look at: every number of the section, reduced once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from traceml_core.core.phases import AROUND_STEP_PHASES, STEP_PHASES, Phase
from traceml_core.diagnostics.metrics import RankMeans, rank_means, stat_of
from traceml_core.diagnostics.model import Stat
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.diagnostics.step_time.owners import OwnerTime, owner_times
from traceml_core.diagnostics.step_time.policy import StepTimePolicy
from traceml_core.diagnostics.step_time.ranks_apart import RanksApart, join_of, ranks_apart, steps_by_rank
from traceml_core.diagnostics.step_time.series import SERIES_PHASES, SeriesBlock, step_series
from traceml_core.diagnostics.step_time.step_table import IN_STEP, StepTable, step_table
from traceml_core.diagnostics.step_time.time_budget import TimeBudget, time_budget
from traceml_core.history.joined_steps import JoinedSteps
from traceml_core.statistics.habit import habitual_total, occasions
from traceml_core.statistics.ranked import RankedMetric, median_rank, ranked_metric
from traceml_core.statistics.reduced import ReducedTable

TABLES = ("step_time", "owner_time", "system", "gpu")
"""The tables that `build_context` reads; those that are missing are taken for empty."""


class HistogramBin(msgspec.Struct, frozen=True, kw_only=True):
    """How many steps took longer than `from_ms`, up to `to_ms`."""

    from_ms: float
    to_ms: float
    count: int


class StepTimeContext(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of a run, reduced.

    Times are per rank. In-step phases are those of the median rank (of two, the one with less; where a rank lags
    chronically, at most that rank's: it waits for nobody), so that what one rank alone does is left to the rules on
    stragglers. Phases around steps are those of the rank where they are longest (the others wait for it). `apart` says
    how far the ranks are apart, null where fewer than two have enough steps in common. `training_s` is the run without
    start-up and warm-up; `wall_s` what an impact is a share of (the run without start-up and warm-up below
    `short_run_s`, else all of it). `habitual_s` and `occasions` have every measured phase, after warm-up; `mean_ms` the
    in-step phases and `step_time`; `host_ms` the host's time in steps that were timed on the device as well.
    `gpu_busy_share` is the utilisation of the busiest GPU. `redone_steps` were done again after a restart; their last
    doing counts.
    """

    run: RunShape
    steps: int
    judged_steps: int
    warmup_steps: int
    redone_steps: int
    wall_s: float
    training_s: float
    habitual_s: dict[str, float]
    occasions: dict[str, int]
    mean_ms: dict[str, float]
    host_ms: dict[str, float]
    owners: tuple[OwnerTime, ...]
    cpus: float | None
    gpu_busy_share: float | None
    apart: RanksApart | None
    samples_per_s: float | None
    tokens_per_s: float | None
    metrics: dict[str, Stat]
    ranks: tuple[RankMeans, ...]
    series: tuple[SeriesBlock, ...]
    distribution: tuple[HistogramBin, ...]
    budget: TimeBudget

    def share_of_training(self, phase: Phase) -> float | None:
        """A phase's habitual seconds as a share of training time; null where it was not measured."""
        seconds = self.habitual_s.get(phase.key)
        return None if seconds is None or self.training_s <= 0 else min(seconds / self.training_s, 1.0)

    def share_of_run(self, seconds: float) -> float:
        """Seconds as a share of wall time: an impact."""
        return min(seconds / self.wall_s, 1.0) if self.wall_s > 0 else 0.0

    def owners_of(self, phase: Phase) -> list[OwnerTime]:
        """Who spent the time of a phase, those that spent most first."""
        return [owner for owner in self.owners if owner.phase == phase.key]


def build_context(
    tables: Mapping[str, ReducedTable | None],
    run: RunShape,
    policy: StepTimePolicy,
    joined: JoinedSteps | None = None,
) -> StepTimeContext | None:
    """Judge the tables of `TABLES`, and what was `joined` beyond their first rows; null where no step was recorded."""
    table = step_table(tables.get("step_time"), policy)
    if table is None or not (table.judged + table.warmup).any():
        return None
    ranked = _ranked_metrics(table)
    training_s, outside_s = _training_seconds(table)
    apart = _apart(table, joined, run, policy)
    lagging = apart.ranks if apart is not None and apart.pattern == "chronic" else ()
    habitual_s, often = _habits(table, lagging, policy)
    wall_s = run.wall_s
    return StepTimeContext(
        run=run,
        steps=_most_a_rank(table, table.judged + table.warmup),
        judged_steps=_most_a_rank(table, table.judged),
        warmup_steps=_most_a_rank(table, table.warmup),
        redone_steps=round((table.redone * table.rows).sum()),
        wall_s=wall_s if wall_s >= policy.short_run_s else max(wall_s - outside_s, training_s),
        training_s=training_s,
        habitual_s=habitual_s,
        occasions=often,
        mean_ms={
            name.removesuffix("_ms"): _common(metric.rank_means, lagging)
            for name, metric in ranked.items()
            if name == "step_time_ms" or name.removesuffix("_ms") in _IN_STEP_KEYS
        },
        host_ms=_host_means(table, lagging),
        owners=owner_times(tables.get("owner_time"), table.first[table.warmup > 0]),
        cpus=_cpus(tables.get("system")),
        gpu_busy_share=_gpu_busy_share(tables.get("gpu"), table, policy),
        apart=apart,
        samples_per_s=_per_second(table, "samples", run),
        tokens_per_s=_per_second(table, "tokens", run),
        metrics=_stats(ranked),
        ranks=rank_means(ranked, table.ranks),
        series=step_series(table, policy.series_blocks),
        distribution=_distribution(ranked["step_time_ms"], policy),
        budget=time_budget(table, run),
    )


def _apart(table: StepTable, joined: JoinedSteps | None, run: RunShape, policy: StepTimePolicy) -> RanksApart | None:
    if len(table.ranks) < 2:
        return None
    join = join_of(table, joined)
    return ranks_apart(join, steps_by_rank(table, join), run, policy)


def _ranked_metrics(table: StepTable) -> dict[str, RankedMetric]:
    """Milliseconds per counted step, by metric name."""
    columns = {"step_time_ms": "step_ns", "step_interval_ms": "interval_ns"}
    columns |= {f"{phase.key}_ms": f"{phase.key}_ns" for phase in SERIES_PHASES}
    ranked = {name: ranked_metric(table.table, column, table.counted, 1e-6) for name, column in columns.items()}
    return {name: metric for name, metric in ranked.items() if metric is not None}


def _stats(ranked: Mapping[str, RankedMetric]) -> dict[str, Stat]:
    step_ms = ranked["step_time_ms"].mean
    return {
        name: stat_of(
            metric, metric.mean / step_ms if name.removesuffix("_ms") in _IN_STEP_KEYS and step_ms > 0 else None
        )
        for name, metric in ranked.items()
    }


def _distribution(metric: RankedMetric, policy: StepTimePolicy) -> tuple[HistogramBin, ...]:
    """How many steps took how long, all ranks together."""
    return tuple(
        HistogramBin(from_ms=lower * metric.scale, to_ms=upper * metric.scale, count=count)
        for lower, upper, count in metric.pooled.histogram(policy.histogram_bins)
    )


def _common(by_rank: Mapping[int, float], lagging: Sequence[int]) -> float:
    """What the ranks have in common: the value of the median rank, the lower one of two; at most a laggard's."""
    return min([median_rank(by_rank.values()), *(by_rank[rank] for rank in lagging if rank in by_rank)])


def _training_seconds(table: StepTable) -> tuple[float, float]:
    """Seconds of training, and seconds of start-up and warm-up; mean over ranks."""
    weight = np.where(table.around & ~table.before, 1.0, table.judged)
    edges_ns = np.nan_to_num(table.phase_ns[[Phase.STARTUP, Phase.TEARDOWN]]).sum(axis=0)
    first_ns = np.where(_first_of_rank(table), np.nan_to_num(table.phase_ns[Phase.LOADER_START]), 0.0)
    training_ns = ((table.interval_ns - edges_ns - first_ns) * weight).sum()
    outside_ns = np.where(table.before | (table.warmup > 0), table.interval_ns, first_ns)
    outside_ns = outside_ns[np.isin(table.rank, table.stepping_ranks)].sum()
    ranks = len(table.stepping_ranks)
    return float(training_ns) / ranks / 1e9, float(outside_ns) / ranks / 1e9


def _habits(
    table: StepTable, lagging: Sequence[int], policy: StepTimePolicy
) -> tuple[dict[str, float], dict[str, int]]:
    """Habitual seconds and occasions per phase, after warm-up; a phase that no counted step measured is left out."""
    outside = np.where(table.around & ~table.before, 1.0, table.judged)
    later = np.where(_first_of_rank(table), 0.0, outside)
    seconds, often = {}, {}
    for phase in (*IN_STEP, *AROUND_STEP_PHASES):
        if not table.is_measured(phase, table.counted):
            continue
        weight = table.judged if phase in IN_STEP else later if phase is Phase.LOADER_START else outside
        per_rank = table.table.sketches_by_rank(f"{phase.key}_ns", weight)
        sums = dict.fromkeys(table.stepping_ranks, 0.0)
        sums |= {rank: habitual_total(values, policy.habit_occasions) / 1e9 for rank, values in per_rank.items()}
        seconds[phase.key] = _common(sums, lagging) if phase in IN_STEP else max(sums.values())
        often[phase.key] = max((occasions(values, policy.habit_occasions) for values in per_rank.values()), default=0)
    return seconds, often


def _first_of_rank(table: StepTable) -> np.ndarray:
    """The first step of every rank: what its loader took to start is start-up."""
    first = np.zeros(table.rank.size, bool)
    places = np.flatnonzero(~table.around)
    first[places[np.unique(table.rank[places], return_index=True)[1]]] = True
    return first


def _host_means(table: StepTable, lagging: Sequence[int]) -> dict[str, float]:
    """Host milliseconds of the in-step phases in steps that have device time as well; empty where none has."""
    host = {phase.key: ranked_metric(table.table, f"host_{phase.key}_ns", table.judged, 1e-6) for phase in STEP_PHASES}
    return {key: _common(metric.rank_means, lagging) for key, metric in host.items() if metric is not None}


def _per_second(table: StepTable, name: str, run: RunShape) -> float | None:
    """So many a second, over all ranks, after warm-up; null where a rank was not recorded, or does not show it.

    The last step is left out where there are others: its interval runs to the end of the loop, not to a next fetch.
    """
    if len(table.ranks) < run.world_size:
        return None
    total = 0.0
    known = np.flatnonzero((table.judged > 0) & (table.table.counts[name] > 0))
    amounts, spent_ns = table.table.sums[name], table.table.sums[f"{name}_interval_ns"]
    by_rank = table.table.by_rank(known)
    for rank in table.ranks:
        places = by_rank.get(rank, known[:0])
        places = places[:-1] if places.size > 1 and table.rows[places[-1]] == 1 else places
        counted_ns = (spent_ns[places] * table.judged[places]).sum()
        if counted_ns <= 0:
            return None
        total += float((amounts[places] * table.judged[places]).sum() / counted_ns * 1e9)
    return total or None


def _most_a_rank(table: StepTable, weight: np.ndarray) -> int:
    return round(float(np.bincount(table.rank, weight * table.rows).max()))


def _cpus(system: ReducedTable | None) -> float | None:
    return None if system is None else system.last("cpus")


def _gpu_busy_share(gpu: ReducedTable | None, steps: StepTable, policy: StepTimePolicy) -> float | None:
    """How busy the busiest GPU was during the steps; null where it was looked at too seldom."""
    if gpu is None or gpu.size == 0:
        return None
    of_steps = ~steps.around
    begin = steps.table.minima["started_ns"][of_steps].min()
    end = steps.table.maxima["started_ns"][of_steps].max()
    during = (gpu.minima["at_ns"] >= begin) & (gpu.maxima["at_ns"] <= end)
    index = gpu.minima["gpu_index"]
    places = [during & (index == one) for one in np.unique(index)]
    name = "gpu_utilization_percent"
    means = [gpu.mean(name, place) for place in places if gpu.counts[name][place].sum() >= policy.launch_gpu_samples]
    return max(mean for mean in means if mean is not None) / 100 if means else None


_IN_STEP_KEYS = frozenset(phase.key for phase in IN_STEP)
