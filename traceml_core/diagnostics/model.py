"""What every diagnosis speaks in: issues and the statistics of a metric."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Severity = Literal["info", "warning", "critical"]
SectionName = str
"""The name of a section, which is its folder's: no closed list, so that a new section needs no line here."""


class Risk(msgspec.Struct, frozen=True, kw_only=True):
    """Memory on its way to its limit: the limit, and the steps left at the present pace."""

    limit_bytes: int
    steps_left: int


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    """One finding.

    `impact_share` is the seconds that fixing it would give back ÷ wall time, an upper bound; null for kinds that only
    describe. `evidence` holds the numbers that the finding rests on, by name with unit.
    """

    kind: str
    severity: Severity
    section: SectionName
    summary: str
    action: str
    impact_share: float | None = None
    risk: Risk | None = None
    ranks: tuple[int, ...] = ()
    evidence: dict[str, Any] = {}

    @property
    def label(self) -> str:
        """The kind in words, derived from its name: 'Input bound'."""
        return self.kind.replace("_", " ").capitalize()


class Stat(msgspec.Struct, frozen=True, kw_only=True):
    """One metric, reduced over the steps (or samples) after warm-up, over all ranks.

    Quantiles carry at most 1 % relative error. `share_of_step` is set for phase times only.
    """

    count: int
    mean: float
    median: float
    p95: float
    max: float
    share_of_step: float | None = None
    worst_rank: int | None = None
    worst_rank_mean: float | None = None
