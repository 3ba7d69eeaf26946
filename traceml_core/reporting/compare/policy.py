"""Every threshold of a comparison. How the spreads were found is told in `docs/comparing.md`."""

from __future__ import annotations

import msgspec


class ComparePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Shares are of the value itself, of parts of a step: of the step.

    The spreads stand for what differs between identical runs (standard deviation), where there is one run a side.
    """

    margin_share: float = 0.05
    minimum_blocks: int = 8
    """Fewer blocks after warm-up are too few to be drawn from."""

    undisturbed_step_spread: float = 0.012
    mean_step_spread: float = 0.03
    memory_spread: float = 0.01
    computing_spread: float = 0.04
    """With one run a side a step that is all work of the CPU may differ by so much more: with the machine's speed."""

    scatter_factor: float = 4.0
    """With one run a side a run's own scatter counts so many times: what disturbs a run lasts longer than a stretch."""

    most_runs: int = 50
    """More runs a side than this are not advised: another machine, or a wider margin, would be."""

    shown_part_share: float = 0.005
    """A part that moved by less than this share of the step is not named in the headline."""


COMPARE_POLICY = ComparePolicy()
