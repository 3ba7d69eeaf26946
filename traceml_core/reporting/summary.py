"""The final summary: the one account of a run that every surface shows. `docs/schema/` is made from these types."""

from __future__ import annotations

from typing import Annotated

import msgspec

from traceml_core.diagnostics.model import Issue, Stat
from traceml_core.telemetry.facts import LoaderFacts
from traceml_core.telemetry.messages import RunStatus

SCHEMA_VERSION = "1.0"


class ErrorSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What ended the run."""

    type: str
    message: str | None
    step: int | None
    global_step: int | None


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """What the job may use: its limits, not the node's."""

    cpus: float | None
    memory_bytes: int | None
    gpus: list[str]


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What ran. Times in seconds, `started_at` in ISO 8601 UTC."""

    run_id: str
    name: str
    status: RunStatus
    error: ErrorSummary | None
    framework: str
    versions: dict[str, str]
    labels: dict[str, str]
    device: str | None
    world_size: int
    nodes: int
    hardware: Hardware
    batch_size: int | None
    accumulation: int | None
    precision: str | None
    loader: LoaderFacts | None
    samples_per_s: float | None
    tokens_per_s: float | None
    started_at: str
    duration_s: float
    steps: int

    @property
    def is_watched(self) -> bool:
        """Whether nobody told what trains, and on which device: a command is looked at from outside."""
        return self.framework == "manual" and self.device is None


class BudgetPart(msgspec.Struct, frozen=True, kw_only=True):
    """One phase's part of the wall time, mean over ranks."""

    phase: str
    seconds: float | None
    share: float | None


class TimeBudget(msgspec.Struct, frozen=True, kw_only=True):
    """Where the wall time went, mean over ranks. A part that was not measured is null; its time is unattributed."""

    wall_s: float
    clock: str
    coverage_share: float
    unattributed_share: float
    parts: list[BudgetPart]


class RankSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One rank's means in one section, by metric name."""

    rank: int
    metrics: dict[str, float | None]


class SeriesBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive steps, reduced: what `compare` resamples. Times in milliseconds."""

    first_step: int
    count: int
    warmup: bool
    step_interval_ms: float
    phases_ms: dict[str, float | None]


class HistogramBin(msgspec.Struct, frozen=True, kw_only=True):
    """How many steps took longer than `from_ms`, up to `to_ms`: all ranks, after warm-up."""

    from_ms: float
    to_ms: float
    count: int


class CoursePoint(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of the run. `at_s` counts from the first look, `step` is the steps done; null where not known.

    `metrics` are means over all ranks, sizes (`…_bytes`) the highest of any; null where not measured.
    """

    at_s: float | None
    step: float | None
    metrics: dict[str, float | None]


class Section(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One domain. `issues` has first things first.

    `warmup_steps`, `series` and `distribution` belong to step_time alone; `course`, at most 240 points, to the others.
    """

    diagnosis: Issue
    issues: list[Issue]
    metrics: dict[str, Stat]
    ranks: list[RankSummary]
    warmup_steps: int | None = None
    series: list[SeriesBlock] | None = None
    distribution: list[HistogramBin] | None = None
    course: list[CoursePoint] | None = None


class TelemetrySummary(msgspec.Struct, frozen=True, kw_only=True):
    """How well the run was measured, and what measuring cost.

    `redone_steps` were done again after a restart, by all ranks together; the last doing of each counts.
    `unended_ranks` never said how they ended: the last seconds of each may be missing.
    """

    rows_received: int
    rows_lost: int
    incarnations: int
    failures: dict[str, int]
    overhead_us_per_step: float | None
    overhead_share: float | None
    report_s: float | None
    redone_steps: int = 0
    unended_ranks: list[int] = []


class FinalSummary(msgspec.Struct, frozen=True, kw_only=True):
    """`final_summary.json`, and while the run goes on `live_summary.json`."""

    schema_version: Annotated[str, msgspec.Meta(pattern=r"^1\.\d+$")] = SCHEMA_VERSION
    run: RunSummary
    primary_diagnosis: Issue
    time_budget: TimeBudget
    sections: dict[str, Section]
    telemetry: TelemetrySummary


def encode_summary(summary: FinalSummary) -> bytes:
    """The summary as indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"


def decode_summary(data: bytes) -> FinalSummary:
    """Read a summary.

    Raises:
        msgspec.ValidationError: the data is not a summary of this schema version.
    """
    return msgspec.json.decode(data, type=FinalSummary)
