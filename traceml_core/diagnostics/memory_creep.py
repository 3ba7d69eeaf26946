"""Memory creep: memory that rises steadily, is never given back, and is still rising. One test for host and device."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from traceml_core.statistics.trend import Growth, floor_growth


class CreepPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When growth is creep. `smallest_rise_bytes` and `smallest_rise_share` must both be reached.

    Growth by `fast_bytes_per_step` or more would fill gigabytes soon: `fast_rise_bytes` are enough for it, if the rise
    strays from a straight line by no more than `fast_strays`. Past `long_s` the share is `long_rise_share`: over hours
    a healthy process drifts by more than in seconds. The shares, pairs, gain, bulge, sag and significance are those of
    `Growth`; of pairs, more must rise where there are fewer than `largest_blocks` blocks. A leak is straight; what
    settles (a cache of kernels, one for every length of a sequence) bulges. `suffix` is the later part of the run that
    is judged as well, more strictly, for a leak behind an allocator's own warm-up.

    Set aside at the start are `settle_share` of the steps, at least `settle_steps` or `settle_s`, whichever is over
    first, and at most `settle_largest_steps`.
    """

    smallest_rise_bytes: int = 6 * 2**20
    smallest_rise_share: float = 0.005
    fast_bytes_per_step: float = 8 * 2**10
    fast_rise_bytes: int = 5 * 2**19
    fast_strays: float = 0.06
    long_rise_share: float = 0.05
    long_s: float = 600.0
    rising_pairs: float = 0.85
    smallest_third: float = 0.15
    last_third: float = 0.18
    largest_jump: float = 0.5
    typical_gain: float = 0.5
    bulge: float = 0.09
    sag: float = 0.13
    significance: float = 35.0
    suffix: float = 2 / 3
    suffix_last_third: float = 0.27

    settle_share: float = 0.1
    settle_steps: int = 10
    settle_s: float = 2.0
    settle_largest_steps: int = 200
    smallest_samples: int = 12
    smallest_steps: int = 200
    smallest_s: float = 12.0
    largest_blocks: int = 12
    usual_gap_share: float = 0.9
    spread_samples: int = 60
    """Samples are thinned to the gap that this share of the time has at most, if so many remain."""

    critical_s_left: float = 900.0
    """Creep is critical where, at its pace, the limit is reached sooner than this."""


class Creep(msgspec.Struct, frozen=True, kw_only=True):
    """One process's (or device's) creep: bytes gained per step, how far it rose and between which steps."""

    bytes_per_step: float
    rise_bytes: int
    last_bytes: int
    first_step: int
    last_step: int
    s_per_step: float


def find_creep(at_s: np.ndarray, step: np.ndarray, size: np.ndarray, policy: CreepPolicy) -> Creep | None:
    """Judge sizes in bytes at times (seconds, rising) when so many steps were done; null where they do not creep.

    The first steps, in which allocators and caches settle, and what came after the last step are left out.
    """
    if step.size == 0:
        return None
    inside = _settled(at_s - at_s[0], step - step[0], policy) & (step < step.max())
    at_s, step, size = at_s[inside], step[inside], size[inside]
    even = _evenly_spread(at_s, policy)
    at_s, step, size = at_s[even], step[even], size[even]
    if step.size < policy.smallest_samples:
        return None
    spanned_s = float(at_s[-1] - at_s[0])
    for part, last_third in ((1.0, policy.last_third), (policy.suffix, policy.suffix_last_third)):
        begin = size.size - int(size.size * part)
        if step[-1] - step[begin] < policy.smallest_steps and spanned_s < policy.smallest_s:
            continue
        growth = _growth(step[begin:], size[begin:], policy)
        if growth is not None and _creeps(growth, last_third, spanned_s, policy):
            passed = float(step[-1] - step[begin])
            return Creep(
                bytes_per_step=growth.per_position,
                rise_bytes=int(growth.rise),
                last_bytes=int(size[-1]),
                first_step=int(step[begin]),
                last_step=int(step[-1]),
                s_per_step=float(at_s[-1] - at_s[begin]) / passed if passed else 0.0,
            )
    return None


def fastest_creep(lives: Iterable[Creep | None]) -> Creep | None:
    """The worst of what the lives of one rank show; null where none creeps."""
    return max((creep for creep in lives if creep is not None), key=lambda one: one.bytes_per_step, default=None)


def _settled(passed_s: np.ndarray, steps: np.ndarray, policy: CreepPolicy) -> np.ndarray:
    share = min(policy.settle_share * float(steps.max()), policy.settle_largest_steps)
    settled: np.ndarray = (steps >= share) & ((steps >= policy.settle_steps) | (passed_s >= policy.settle_s))
    return settled


def _evenly_spread(at_s: np.ndarray, policy: CreepPolicy) -> np.ndarray:
    """Places of samples that are about equally far apart: looks are rarer later in a run, and weigh as much."""
    if at_s.size < policy.smallest_samples:
        return np.arange(at_s.size)
    gaps = np.sort(np.diff(at_s))
    usual_s = gaps[np.searchsorted(np.cumsum(gaps), policy.usual_gap_share * gaps.sum())]
    cell_s = 0.6 * min(usual_s, (at_s[-1] - at_s[0]) / policy.spread_samples)
    if cell_s <= 0:
        return np.arange(at_s.size)
    return np.unique(np.floor((at_s - at_s[0]) / cell_s), return_index=True)[1]


def _growth(step: np.ndarray, size: np.ndarray, policy: CreepPolicy) -> Growth | None:
    # A block of a slow run must hold a step or two, or the stairs of a leak look like single jumps.
    blocks = max(min(size.size // 3, np.unique(step).size // 2, policy.largest_blocks), 6)
    return floor_growth(step, size, blocks)


def _creeps(growth: Growth, last_third: float, spanned_s: float, policy: CreepPolicy) -> bool:
    share = policy.smallest_rise_share if spanned_s < policy.long_s else policy.long_rise_share
    falling_pairs = (1 - policy.rising_pairs) * (growth.blocks / policy.largest_blocks) ** 2
    return (
        growth.per_position > 0
        and growth.rise >= max(_smallest_rise(growth, policy), share * growth.first)
        and growth.rising_pairs >= 1 - falling_pairs
        and growth.smallest_third >= policy.smallest_third
        and growth.last_third >= last_third
        and growth.largest_jump <= policy.largest_jump
        and growth.typical_gain >= policy.typical_gain
        and growth.bulge <= policy.bulge
        and growth.sag <= policy.sag
        and growth.significance >= policy.significance
    )


def _smallest_rise(growth: Growth, policy: CreepPolicy) -> int:
    fast = growth.per_position >= policy.fast_bytes_per_step and max(growth.bulge, growth.sag) <= policy.fast_strays
    return policy.fast_rise_bytes if fast else policy.smallest_rise_bytes
