"""What a row of a compared section is: a metric's name, and how one run's summary tells it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
import numpy as np

from traceml_core.reporting.compare.model import Unit
from traceml_core.reporting.summary import FinalSummary

Better = Literal["lower", "higher"]


class Reading(msgspec.Struct, frozen=True):
    """What one run says of a metric: its values in order, and how many steps each stands for."""

    values: np.ndarray
    counts: np.ndarray


class MetricRow(msgspec.Struct, frozen=True, kw_only=True):
    """One comparable metric. `better` null: a number that is neither good nor bad, shown without a verdict.

    `read` gives null where the run did not measure it. `spread` is the share by which identical runs of a quiet machine
    differ (standard deviation). Where there is one run a side, `computing_spread` comes on top: whole for a training
    that computes on the CPU all the time, else in proportion. `decides`: it takes part in the verdict of the whole.
    `part_of`: the name of the metric of which it is a part; its change is then in points of that metric.
    """

    name: str
    label: str
    unit: Unit
    read: Callable[[FinalSummary], Reading | None]
    better: Better | None = None
    spread: float = 0.0
    computing_spread: float = 0.0
    decides: bool = False
    part_of: str | None = None


class ComparedSection(msgspec.Struct, frozen=True):
    """A section's rows, in the order in which they are shown."""

    name: str
    rows: tuple[MetricRow, ...]


def one_number(value: float | None) -> Reading | None:
    """A reading of one number; null where it was not measured."""
    return None if value is None else Reading(np.array([float(value)]), np.array([1.0]))


def mean_of(section: str, name: str) -> Callable[[FinalSummary], Reading | None]:
    """Reads the mean of a section's metric."""

    def read(summary: FinalSummary) -> Reading | None:
        stat = summary.sections[section].metrics.get(name) if section in summary.sections else None
        return None if stat is None else one_number(stat.mean)

    return read


def largest_of(section: str, name: str) -> Callable[[FinalSummary], Reading | None]:
    """Reads the largest value of a section's metric."""

    def read(summary: FinalSummary) -> Reading | None:
        stat = summary.sections[section].metrics.get(name) if section in summary.sections else None
        return None if stat is None else one_number(stat.max)

    return read
