"""Summaries with a series, for tests of comparing them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from summary_factory import make_stat, make_summary

from traceml_core.core.phases import Phase
from traceml_core.reporting.summary import FinalSummary, SeriesBlock

STEP_MS = {Phase.INPUT_WAIT: 2.0, Phase.FORWARD: 3.0, Phase.BACKWARD: 4.0, Phase.OPTIMIZER: 1.0}
ZEROS = {phase: 0.0 for phase in Phase if phase not in (Phase.STARTUP, Phase.TEARDOWN)}


def make_series(
    phases_ms: Mapping[Phase, float | None],
    *,
    steps: int = 200,
    warmup: int = 0,
    jitter: float = 0.01,
    seed: int = 0,
    every: Mapping[int, float] = {},
    lag_ms: float = 0.0,
) -> list[SeriesBlock]:
    """One block a step. Warm-up steps take ten times as long; `every` so many steps one has so much more backward."""
    random = np.random.default_rng(seed)
    blocks = []
    for step in range(1, steps + 1):
        factor = 10.0 if step <= warmup else 1.0
        spent = {
            phase: None if value is None else value * factor * float(random.lognormal(0, jitter))
            for phase, value in {**ZEROS, **phases_ms}.items()
        }
        spent[Phase.BACKWARD] = (spent[Phase.BACKWARD] or 0.0) + sum(ms for n, ms in every.items() if step % n == 0)
        blocks.append(
            SeriesBlock(
                first_step=step,
                count=1,
                warmup=step <= warmup,
                step_interval_ms=lag_ms + sum(value or 0.0 for value in spent.values()),
                phases_ms={phase.key: value for phase, value in spent.items()},
            )
        )
    return blocks


def make_compared(
    phases_ms: Mapping[Phase, float | None] = STEP_MS,
    *,
    series: dict[str, Any] | None = None,
    rss_bytes: float | None = 6.4e8,
    peak_bytes: float | None = None,
    cpu_percent: float | None = None,
    **run: Any,
) -> FinalSummary:
    """A run of 200 steps of about 10 ms; `series` is given to `make_series`, what is left to the run's facts."""
    summary = make_summary(**run)
    sections = dict(summary.sections)
    blocks = make_series(phases_ms, **(series or {}))
    sections["step_time"] = msgspec.structs.replace(sections["step_time"], series=blocks)
    process = {} if rss_bytes is None else {"rss_bytes": make_stat(rss_bytes, max=rss_bytes)}
    process |= {} if cpu_percent is None else {"cpu_percent": make_stat(cpu_percent)}
    sections["process"] = msgspec.structs.replace(sections["process"], metrics=process)
    peaks = {} if peak_bytes is None else {"peak_allocated_bytes": make_stat(peak_bytes, max=peak_bytes)}
    sections["step_memory"] = msgspec.structs.replace(sections["step_memory"], metrics=peaks)
    return msgspec.structs.replace(summary, sections=sections)


def slower(phase: Phase, milliseconds: float) -> dict[Phase, float]:
    """The usual step, with so much more in one phase."""
    return {**STEP_MS, phase: STEP_MS[phase] + milliseconds}
