"""How far the ranks of a job are apart: whose lag the others wait for, in what, and whether it is a habit of one."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np

from traceml_core.core.phases import STEP_PHASES, Phase
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.diagnostics.step_time.policy import StepTimePolicy
from traceml_core.diagnostics.step_time.step_table import StepTable
from traceml_core.diagnostics.thresholds import Threshold
from traceml_core.history.joined_steps import JoinedSteps
from traceml_core.statistics.habit import habitual_sum
from traceml_core.statistics.rank_join import RankJoin, join_rows, merge_joins

Pattern = Literal["chronic", "rotating", "one-off"]


class RankPhase(msgspec.Struct, frozen=True, kw_only=True):
    """A rank's mean milliseconds a step in a phase, and those of the median of the other ranks."""

    rank_ms: float
    others_ms: float


class RanksApart(msgspec.Struct, frozen=True, kw_only=True):
    """Joined steps, reduced to one story. Shares are of the joined steps' time.

    `pattern` is null where the lags are too small, or too much like chance, to be anybody's. `ranks` are those who lag,
    the worst first, and `ranks_share` is the part of all lags that is theirs; `phase` is where most of it comes from,
    with `phase_share` of it. `lag_share` leaves out what happened once or twice, except where that is the story
    (one-off). `synchronous` is whether ranks wait for each other at every step. `sync_share` is the wait for gradients
    that even the last rank has; null where it was not measured. `phases` are those of the worst rank.
    `ranks_joined` were in half of the joined steps or more.
    """

    world_size: int
    ranks_joined: int
    joined_steps: int
    incomplete_steps: int
    synchronous: bool
    pattern: Pattern | None
    ranks: tuple[int, ...]
    phase: Phase | None
    phase_share: float
    lag_share: float
    lag_ms: float
    ranks_share: float
    sync_share: float | None
    phases: dict[str, RankPhase]


def ranks_apart(join: RankJoin, took_part: np.ndarray, run: RunShape, policy: StepTimePolicy) -> RanksApart | None:
    """Tell the story of a join; null where fewer than two ranks have steps in common.

    `took_part` says of how many joined steps each rank was: one that fell silent counts as if it had gone on as it was.
    """
    if join.joined_steps < policy.minimum_steps:
        return None
    steps = join.joined_steps
    join = msgspec.structs.replace(join, total_ns=join.total_ns * (steps / took_part))
    interval_ns = max(float(join.total_ns.sum(axis=0).mean()), 1.0)
    pattern, places, lag_ns = _pattern(join, interval_ns, run.on_accelerator, policy)
    blame_ns = join.blame_ns[:, places].sum(axis=1)
    phase = Phase(int(blame_ns.argmax())) if places and blame_ns.any() else None
    # A wait that no rank has in any step is one that nobody looked for: a loop of one's own that does not mark it.
    split = steps - join.unsplit_steps if join.total_ns[Phase.GRAD_SYNC].any() else 0
    return RanksApart(
        world_size=run.world_size,
        ranks_joined=int((took_part >= steps / 2).sum()),
        joined_steps=steps,
        incomplete_steps=join.incomplete_steps,
        synchronous=_is_synchronous(join, places, lag_ns),
        pattern=pattern,
        ranks=tuple(int(join.ranks[place]) for place in places),
        phase=phase,
        phase_share=float(blame_ns[phase] / blame_ns.sum()) if phase is not None else 0.0,
        lag_share=lag_ns / interval_ns,
        lag_ms=lag_ns / steps / 1e6,
        ranks_share=float(join.block_lag_ns.sum(axis=0)[places].sum() / max(join.lag.total, 1.0)),
        sync_share=join.sync_floor_ns / interval_ns * steps / split if split else None,
        phases=_phases(join, places),
    )


def lag_thresholds(on_accelerator: bool, policy: StepTimePolicy) -> tuple[Threshold, Threshold]:
    """From which share of training on a chronic and a rotating lag are worth a warning."""
    if on_accelerator:
        return policy.straggler_share, policy.rotating_share
    return policy.straggler_share_on_cpu, policy.rotating_share_on_cpu


def join_of(table: StepTable, beyond: JoinedSteps | None) -> RankJoin:
    """The judged steps of a table, joined; of a long run those `beyond` the first were, while their rows were there."""
    single = (table.judged > 0) & (table.rows == 1)
    if beyond is not None:
        single &= table.first <= beyond.after_step
    places = np.flatnonzero(single)
    head = join_rows(table.rank[places], table.first[places], table.phase_ns[:, places])
    return head if beyond is None else merge_joins([head, beyond.join])


def steps_by_rank(table: StepTable, join: RankJoin) -> np.ndarray:
    """Of how many joined steps each rank of a join was: of all, or of those that make up the time it spent in them.

    A rank that fell silent did fewer steps than were joined, and its last ones may have come too late for that.
    """

    def of_ranks(values: np.ndarray) -> np.ndarray:
        mine: np.ndarray = np.bincount(table.rank, values, int(join.ranks.max(initial=0)) + 1)[join.ranks]
        return mine

    done = of_ranks((table.judged + table.warmup) * table.rows)
    mean_ns = of_ranks(table.judged * table.interval_ns) / np.maximum(of_ranks(table.judged * table.rows), 1)
    by_time = np.round(join.total_ns.sum(axis=0) / np.maximum(mean_ns, 1.0))
    took_part = np.where(done < join.joined_steps, np.minimum(by_time, done), join.joined_steps)
    at_least_one: np.ndarray = np.maximum(took_part, 1)
    return at_least_one


def _usual_lag(join: RankJoin, policy: StepTimePolicy) -> float:
    """The lags without those that happened once or twice, or in one short stretch of the run: see `habitual_sum`."""
    by_block_ns = join.block_lag_ns.sum(axis=1)[join.block_count > 0]
    often = max(policy.habit_occasions, math.ceil(policy.one_off_blocks_share * by_block_ns.size))
    nth_largest_ns = join.lag.quantile(1 - (policy.habit_occasions - 1) / join.lag.count)
    return min(join.lag.sum_up_to(nth_largest_ns), habitual_sum(by_block_ns, often))


def _pattern(
    join: RankJoin, interval_ns: float, on_accelerator: bool, policy: StepTimePolicy
) -> tuple[Pattern | None, list[int], float]:
    """What kind of story the lags tell, the places of the ranks in it, and the lag in all."""
    usual_ns, by_rank_ns = _usual_lag(join, policy), join.block_lag_ns.sum(axis=0)
    chronic_ns = _chronic_excess(join, policy)
    lag_ns = min(usual_ns, float(chronic_ns.max()))
    chronic, rotating = lag_thresholds(on_accelerator, policy)
    if chronic.severity(lag_ns / interval_ns):
        return "chronic", _worst_first(chronic_ns), lag_ns
    if rotating.severity(usual_ns / interval_ns):
        even_ns = join.lag.total / join.ranks.size
        leaders_ns = np.where(by_rank_ns >= policy.rotating_share_of_even * even_ns, by_rank_ns, 0.0)
        return "rotating", _worst_first(leaders_ns), usual_ns
    if policy.one_off_share.severity((join.lag.total - usual_ns) / interval_ns):
        return "one-off", _worst_first(by_rank_ns)[:1], join.lag.total - usual_ns
    return None, [], usual_ns


def _chronic_excess(join: RankJoin, policy: StepTimePolicy) -> np.ndarray:
    """The excess over the others of each rank that lags for sure, and in most of the lag there is; 0 for the rest."""
    steps = join.joined_steps
    mean_ns = join.excess_ns / steps
    spread_ns = np.sqrt(np.maximum(join.excess_squares / steps - mean_ns**2, 0.0))
    late_share = (join.block_excess_ns[join.block_count > 0] > 0).mean(axis=0)
    certain = mean_ns >= policy.straggler_certainty * spread_ns / np.sqrt(steps)
    certain |= late_share >= policy.straggler_late_share
    chronic = certain & (mean_ns >= policy.chronic_share_of_lag * join.lag.mean)
    excess_ns: np.ndarray = np.where(chronic, np.maximum(join.excess_ns, 0.0), 0.0)
    return excess_ns


def _worst_first(values: np.ndarray) -> list[int]:
    order = np.argsort(-values, kind="stable")
    return [int(place) for place in order if values[place] > 0]


def _is_synchronous(join: RankJoin, places: list[int], lag_ns: float) -> bool:
    """Whether the steps of the ranks that lag take as long as the others': these wait for them."""
    others = np.delete(np.arange(join.ranks.size), places)
    if not places or not others.size:
        return True
    interval_ns = join.total_ns.sum(axis=0)
    return bool(np.median(interval_ns[places]) - np.median(interval_ns[others]) <= lag_ns / 2)


def _phases(join: RankJoin, places: list[int]) -> dict[str, RankPhase]:
    """The worst rank's phases beside those of the others."""
    if not places or join.ranks.size < 2:
        return {}
    per_step_ms = join.total_ns / join.joined_steps / 1e6
    others = np.delete(per_step_ms, places[0], axis=1)
    return {
        phase.key: RankPhase(rank_ms=float(per_step_ms[phase, places[0]]), others_ms=float(np.median(others[phase])))
        for phase in (*STEP_PHASES, Phase.UNATTRIBUTED)
    }
