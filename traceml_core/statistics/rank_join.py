"""Steps joined across ranks: who was slowest, by how much, in what; mergeable, and as small for a million steps.

`rank_lag` says what a step's lag is; here lags, and what else tells ranks apart, are summed over steps.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from traceml_core.core.phases import Phase
from traceml_core.statistics.others import middle_of
from traceml_core.statistics.rank_lag import IN_ORDER, comparable, slowest_of, step_lags
from traceml_core.statistics.sketch import Sketch, merge, sketch_of

OWN_WORK = len(Phase)
"""The row of `slowest_steps` and `lead_ns` that holds own work: everything but `grad_sync`."""

BLOCKS = 32
CHUNK_VALUES = 2**17


class RankJoin(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Joined steps of some ranks, reduced. P phases, R ranks (in the order of `ranks`), B blocks; nanoseconds.

    `incomplete_steps` could not be joined, because a rank has no row of them; of `unsplit_steps`, which are joined, a
    rank did not measure its wait for gradients, and only input and copy were compared. `sync_floor_ns` sums over the
    other steps the shortest such wait of any rank: what no rank could have spared by being faster.

    Per phase and rank: `total_ns` (what was not measured counts as 0), `slowest_steps` and `lead_ns`: how often the
    rank took longest and by how much it exceeded the median of the others then (the last row is own work);
    `blame_ns`: the lags of the rank, divided among the phases that made them. `lag` holds the lag of every step.

    The excess of a rank is its work up to where a step's lag showed, minus the median of the others, of either sign:
    `excess_squares` sums its squares. `block_excess_ns`, `block_lag_ns` (B, R) and `block_count` (B) spread excess,
    lags and steps over time: block i holds the steps from `(first_block + i) * block_steps` on.
    """

    ranks: np.ndarray
    joined_steps: int
    incomplete_steps: int
    unsplit_steps: int
    sync_floor_ns: float
    total_ns: np.ndarray
    slowest_steps: np.ndarray
    lead_ns: np.ndarray
    blame_ns: np.ndarray
    excess_squares: np.ndarray
    lag: Sketch
    first_block: int
    block_steps: int
    block_lag_ns: np.ndarray
    block_excess_ns: np.ndarray
    block_count: np.ndarray

    @property
    def excess_ns(self) -> np.ndarray:
        """(R): each rank's excess over the others, summed over steps."""
        excess: np.ndarray = self.block_excess_ns.sum(axis=0)
        return excess


def join_rows(rank: np.ndarray, step: np.ndarray, phase_ns: np.ndarray) -> RankJoin:
    """Join rows: of each the rank, the step and its (P, rows) nanoseconds, NaN where not measured.

    Each rank has at most one row a step; of a step that was done again, the caller gives the last one. Steps that not
    every one of these ranks has are counted as incomplete.
    """
    ranks = np.unique(rank)
    order = np.lexsort((rank, step))
    steps, firsts, rows_a_step = np.unique(step[order], return_index=True, return_counts=True)
    whole = rows_a_step == ranks.size
    first_rows, steps = firsts[whole], steps[whole]
    incomplete = int((~whole).sum())
    if ranks.size < 2 or not steps.size:
        return _nothing(ranks, incomplete)
    joins = [_nothing(ranks, incomplete)]
    chunk = max(CHUNK_VALUES // ranks.size, 1)
    for start in range(0, steps.size, chunk):
        rows = order[first_rows[start : start + chunk, None] + np.arange(ranks.size)]
        joins.append(join_steps(steps[start : start + chunk], ranks, phase_ns[:, rows]))
    return merge_joins(joins)


def join_steps(step: np.ndarray, ranks: np.ndarray, spent_ns: np.ndarray, incomplete_steps: int = 0) -> RankJoin:
    """Join whole steps: step numbers (S), ranks (R, rising, at least two), nanoseconds (P, S, R), NaN: not measured.

    `incomplete_steps` is how many more the caller saw that some rank has no row of.
    """
    if not step.size:
        return _nothing(ranks, incomplete_steps)
    sync_ns = spent_ns[Phase.GRAD_SYNC]
    split = ~np.isnan(sync_ns).any(axis=1)
    total_ns = np.nansum(spent_ns, axis=1)
    known_ns = comparable(spent_ns, split)
    taken = [phase for phase in IN_ORDER if known_ns[phase].any()]
    middles = {phase: middle_of(known_ns[phase]) for phase in (*taken, Phase.GRAD_SYNC)}
    own_ns = np.where(split[:, None], known_ns.sum(axis=0) - known_ns[Phase.GRAD_SYNC], 0.0)

    slowest_steps, lead_ns = np.zeros((len(Phase) + 1, ranks.size), np.int64), np.zeros((len(Phase) + 1, ranks.size))
    for place, values, middle in (
        *((phase, known_ns[phase], middle) for phase, middle in middles.items()),
        (OWN_WORK, own_ns, middle_of(own_ns)),
    ):
        slowest, lead = slowest_of(values, middle)
        slowest_steps[place] = np.bincount(slowest[lead > 0], minlength=ranks.size)
        lead_ns[place] = np.bincount(slowest, lead, ranks.size)

    lags = step_lags(known_ns, split, taken, middles)
    first, width, block = _blocks(step)
    block_lag_ns = np.zeros((int(block.max()) + 1, ranks.size))
    np.add.at(block_lag_ns, (block, lags.rank), lags.lag_ns)
    block_excess_ns = np.zeros_like(block_lag_ns)
    np.add.at(block_excess_ns, block, lags.excess_ns)
    return RankJoin(
        ranks=np.asarray(ranks, np.int64),
        joined_steps=step.size,
        incomplete_steps=incomplete_steps,
        unsplit_steps=int((~split).sum()),
        sync_floor_ns=float(sync_ns[split].min(axis=1).sum()),
        total_ns=total_ns,
        slowest_steps=slowest_steps,
        lead_ns=lead_ns,
        blame_ns=lags.blame_ns,
        excess_squares=np.square(lags.excess_ns).sum(axis=0),
        lag=sketch_of(lags.lag_ns),
        first_block=first,
        block_steps=width,
        block_lag_ns=block_lag_ns,
        block_excess_ns=block_excess_ns,
        block_count=np.bincount(block, minlength=block_lag_ns.shape[0]),
    )


def merge_joins(joins: Iterable[RankJoin]) -> RankJoin:
    """The join of all the steps together; no step may be in two of them. Ranks may differ: the union has them all."""
    known = list(joins)
    ranks = np.unique(np.concatenate([np.zeros(0, np.int64), *(join.ranks for join in known)]))
    filled = [join for join in known if join.joined_steps]
    incomplete = sum(join.incomplete_steps for join in known)
    if not filled:
        return _nothing(ranks, incomplete)
    columns = [np.searchsorted(ranks, join.ranks) for join in filled]

    def added(name: str) -> np.ndarray:
        parts = [getattr(join, name) for join in filled]
        whole = np.zeros((*parts[0].shape[:-1], ranks.size), parts[0].dtype)
        for part, place in zip(parts, columns, strict=True):
            whole[..., place] += part
        return whole

    width, first, last = _common_blocks(filled)
    block_lag_ns, block_count = np.zeros((last - first + 1, ranks.size)), np.zeros(last - first + 1, np.int64)
    block_excess_ns = np.zeros_like(block_lag_ns)
    for join, place in zip(filled, columns, strict=True):
        block = (np.arange(join.block_count.size) + join.first_block) * join.block_steps // width - first
        np.add.at(block_lag_ns, (block[:, None], place[None, :]), join.block_lag_ns)
        np.add.at(block_excess_ns, (block[:, None], place[None, :]), join.block_excess_ns)
        np.add.at(block_count, block, join.block_count)
    return RankJoin(
        ranks=ranks,
        joined_steps=sum(join.joined_steps for join in filled),
        incomplete_steps=incomplete,
        unsplit_steps=sum(join.unsplit_steps for join in filled),
        sync_floor_ns=sum(join.sync_floor_ns for join in filled),
        total_ns=added("total_ns"),
        slowest_steps=added("slowest_steps"),
        lead_ns=added("lead_ns"),
        blame_ns=added("blame_ns"),
        excess_squares=added("excess_squares"),
        lag=merge(join.lag for join in filled),
        first_block=first,
        block_steps=width,
        block_lag_ns=block_lag_ns,
        block_excess_ns=block_excess_ns,
        block_count=block_count,
    )


def pack_join(join: RankJoin) -> bytes:
    """The join as bytes, to be stored."""
    arrays: dict[str, Any] = {name: np.asarray(getattr(join, name)) for name in join.__struct_fields__ if name != "lag"}
    arrays["lag"] = np.frombuffer(msgspec.msgpack.encode(join.lag), np.uint8)
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def unpack_join(data: bytes) -> RankJoin:
    """What `pack_join` packed.

    Raises:
        ValueError, KeyError, zipfile.BadZipFile, msgspec.ValidationError: these are no such bytes.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        values = {name: stored[name] for name in RankJoin.__struct_fields__}
    lag = msgspec.msgpack.decode(values.pop("lag").tobytes(), type=Sketch)
    return RankJoin(lag=lag, **{name: value if value.ndim else value.item() for name, value in values.items()})


def _blocks(step: np.ndarray) -> tuple[int, int, np.ndarray]:
    """The first block, the steps of each (a power of two, so that any two joins' blocks fit), each step's block."""
    whole = step.astype(np.int64)
    width = _width(int(whole.min()), int(whole.max()), 1)
    first = int(whole.min()) // width
    return first, width, whole // width - first


def _common_blocks(joins: list[RankJoin]) -> tuple[int, int, int]:
    """Width, first and last block that hold the blocks of all."""
    first = min(join.first_block * join.block_steps for join in joins)
    last = max((join.first_block + join.block_count.size) * join.block_steps - 1 for join in joins)
    width = _width(first, last, max(join.block_steps for join in joins))
    return width, first // width, last // width


def _width(first: int, last: int, least: int) -> int:
    width = least
    while last // width - first // width >= BLOCKS:
        width *= 2
    return width


def _nothing(ranks: np.ndarray, incomplete_steps: int) -> RankJoin:
    per_rank = np.zeros(ranks.size)
    per_phase = np.zeros((len(Phase), ranks.size))
    with_own = np.zeros((len(Phase) + 1, ranks.size))
    return RankJoin(
        ranks=np.asarray(ranks, np.int64),
        joined_steps=0,
        incomplete_steps=incomplete_steps,
        unsplit_steps=0,
        sync_floor_ns=0.0,
        total_ns=per_phase,
        slowest_steps=with_own.astype(np.int64),
        lead_ns=with_own,
        blame_ns=per_phase,
        excess_squares=per_rank,
        lag=Sketch(),
        first_block=0,
        block_steps=1,
        block_lag_ns=np.zeros((0, ranks.size)),
        block_excess_ns=np.zeros((0, ranks.size)),
        block_count=np.zeros(0, np.int64),
    )
