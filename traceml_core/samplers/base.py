"""What a sampler is: something that, on the sender thread, turns a look at the world into rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from traceml_core.core.identity import RankIdentity
from traceml_core.core.rows import Row
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder


class SamplerContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a sampler may look at.

    `watched_pid` is the process whose tree is measured. `device` gives the torch device type of this rank ('cpu',
    'cuda'), null where it is not known yet; `unmeasured` the keys of phases that cannot be separated here;
    `aggregator_pid` null on ranks that do not own it. `sample_interval_s` is the setting. `unix_ns` gives the
    present moment on the clock of the steps, which does not jump where the machine's clock does.
    """

    identity: RankIdentity
    clock: PhaseClock
    steps: StepRecorder
    watched_pid: int
    device: Callable[[], str | None]
    unmeasured: Callable[[], frozenset[str]]
    aggregator_pid: Callable[[], int | None]
    sample_interval_s: float = 1.0
    unix_ns: Callable[[], int] = time.time_ns


class BaseSampler(Protocol):
    """A sampler is built by its `SamplerSpec` on the sender thread, where `sample` is then called.

    `sample` returns rows of the row types that its spec names. It may raise: the sender counts the failure, writes it
    to errors.log once per cause, and goes on with the other samplers.
    """

    def sample(self) -> Sequence[Row]:
        """The rows since the last call; empty when there is nothing to tell."""
        ...


@runtime_checkable
class GlancingSampler(Protocol):
    """A sampler that, some of the time, has to look more often than the sender ticks."""

    glances: int
    """How often it wants to glance before the next tick; 0 most of the time."""

    def glance(self) -> None:
        """Take a look, and keep it for the next `sample`. It may raise, as `sample` may."""
        ...
