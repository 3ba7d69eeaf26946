"""The comparison: the one account of two sides that text, JSON, markdown and HTML draw."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

COMPARISON_VERSION = "1.0"

Verdict = Literal["REGRESSION", "IMPROVEMENT", "EQUIVALENT", "INCONCLUSIVE"]
Unit = Literal["ms", "bytes", "percent", "per_s", "watt"]


class ComparedRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a side."""

    run_id: str
    name: str
    status: str
    steps: int
    warmup_steps: int | None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A fact in which the sides are not alike. `weighty` where it makes their times no measure of one another."""

    what: str
    a: str
    b: str
    weighty: bool


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """From A to B, as a share of A's value (of a part: of A's whole step); `low` and `high` are its 95 % interval.

    `smallest_share` is the smallest change that data like these show in four cases of five; `runs_to_settle` how many
    runs a side would settle what is inconclusive, null where it is settled, or more than is reasonable. `spread_share`
    is the spread between single runs that was reckoned with, `spread_measured` whether the runs told it.
    """

    share: float
    low_share: float
    high_share: float
    smallest_share: float
    runs_to_settle: int | None
    spread_share: float
    spread_measured: bool


class ComparedMetric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric on both sides, null where a side did not measure it.

    `decides`: it takes part in the verdict. `part_of` names the metric of which it is a part. `verdict` is null where
    there is nothing to judge: not measured, or a number that is neither good nor bad.
    """

    section: str
    name: str
    label: str
    unit: Unit
    decides: bool
    part_of: str | None
    a: float | None
    b: float | None
    change: Change | None
    verdict: Verdict | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Sides A (before) and B (after). `headline` and `reasons` say in words what the numbers say."""

    schema_version: Annotated[str, msgspec.Meta(pattern=r"^1\.\d+$")] = COMPARISON_VERSION
    verdict: Verdict
    headline: str
    reasons: list[str]
    action: str
    margin_share: float
    like_for_like: bool
    differences: list[Difference]
    a: list[ComparedRun]
    b: list[ComparedRun]
    metrics: list[ComparedMetric]


def encode_comparison(comparison: Comparison) -> bytes:
    """The comparison as indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(comparison), indent=2) + b"\n"
