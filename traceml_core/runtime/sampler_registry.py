"""Which samplers run where: the one place that a new sampler is added to."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from traceml_core.core.rows import Row
from traceml_core.samplers.base import BaseSampler, SamplerContext
from traceml_core.samplers.gpu import GpuRow, GpuSampler
from traceml_core.samplers.process import ProcessMemoryRow, ProcessMemorySampler, ProcessRow, ProcessSampler
from traceml_core.samplers.step_memory import StepMemoryRow
from traceml_core.samplers.step_time import OwnerTimeRow, StepSampler, StepTimeRow
from traceml_core.samplers.system import SystemRow, SystemSampler

EVERY_MODE = ("summary", "cli", "dashboard")


class SamplerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One sampler: how it is built, the rows it makes, where it runs, and how often.

    `interval_s` null is the setting `sample_interval_s`; 0 is every tick of the sender (ten a second).
    """

    name: str
    build: Callable[[SamplerContext], BaseSampler]
    row_types: tuple[type[Row], ...]
    profiles: tuple[str, ...]
    modes: tuple[str, ...] = EVERY_MODE
    interval_s: float | None = None


DEFAULT_SAMPLER_REGISTRY: tuple[SamplerSpec, ...] = (
    SamplerSpec(
        name="step",
        build=StepSampler,
        row_types=(StepTimeRow, OwnerTimeRow, StepMemoryRow),
        profiles=("run",),
        interval_s=0.0,
    ),
    SamplerSpec(
        name="process_memory",
        build=ProcessMemorySampler,
        row_types=(ProcessMemoryRow,),
        profiles=("run", "watch"),
        interval_s=0.0,
    ),
    SamplerSpec(name="process", build=ProcessSampler, row_types=(ProcessRow,), profiles=("run", "watch")),
    SamplerSpec(name="system", build=SystemSampler, row_types=(SystemRow,), profiles=("run", "watch")),
    SamplerSpec(name="gpu", build=GpuSampler, row_types=(GpuRow,), profiles=("run", "watch")),
)


def samplers_for(
    profile: str, mode: str, registry: tuple[SamplerSpec, ...] = DEFAULT_SAMPLER_REGISTRY
) -> tuple[SamplerSpec, ...]:
    """The samplers of a profile in a mode, in the registry's order."""
    return tuple(spec for spec in registry if profile in spec.profiles and mode in spec.modes)


def row_types() -> tuple[type[Row], ...]:
    """Every row type that any sampler makes: the tables of the history."""
    return tuple(row_type for spec in DEFAULT_SAMPLER_REGISTRY for row_type in spec.row_types)
