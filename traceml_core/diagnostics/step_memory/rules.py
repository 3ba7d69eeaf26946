"""The step_memory rules, in order of priority at the end of the file."""

from __future__ import annotations

from typing import ClassVar

from traceml_core.core.units import byte_size, count, percent
from traceml_core.diagnostics.judgement import Abstained, Rule
from traceml_core.diagnostics.model import Issue, Risk, Severity
from traceml_core.diagnostics.step_memory.context import RankMemory, StepMemoryContext
from traceml_core.diagnostics.step_memory.policy import StepMemoryPolicy


class GpuMemoryCreep:
    """Device memory grows with every step and is not given back.

    What is true: what is allocated at the end of a step rises steadily.

    Why it matters: the run ends with an out-of-memory error once the device is full.

    What to do: look for tensors that outlive their step: losses or outputs kept in a list (keep `.item()` or
    `.detach().cpu()`), a graph kept by retain_graph=True, metrics that gather predictions on the device.
    """

    kind: ClassVar[str] = "GPU_MEMORY_CREEP"
    supersedes: ClassVar[tuple[str, ...]] = ("GPU_MEMORY_PRESSURE",)

    def evaluate(self, memory: StepMemoryContext, policy: StepMemoryPolicy) -> Issue | Abstained | None:
        """Name the ranks whose allocated memory creeps, and when the device is full."""
        creeping = [(one, one.creep) for one in memory.memory if one.creep is not None]
        if not creeping:
            return None
        worst, creep = max(creeping, key=lambda pair: pair[1].bytes_per_step)
        risk = None
        severity: Severity = "warning"
        if worst.total_bytes:
            room = max(worst.total_bytes - worst.peak_allocated_bytes, 0)
            risk = Risk(limit_bytes=worst.total_bytes, steps_left=int(room / creep.bytes_per_step))
            if risk.steps_left * creep.s_per_step <= policy.creep.critical_s_left:
                severity = "critical"
        left = "" if risk is None else f"; at this pace the device is full in {count(risk.steps_left)} steps"
        return Issue(
            kind=self.kind,
            severity=severity,
            section="step_memory",
            summary=f"Device memory grows by {byte_size(creep.bytes_per_step)} a step, "
            f"{byte_size(creep.rise_bytes)} so far{left}.",
            action="Look for tensors kept beyond their step: keep loss.item(), and detach outputs before keeping them.",
            risk=risk,
            ranks=tuple(one.rank for one, _ in creeping),
            evidence={"bytes_per_step": creep.bytes_per_step, "rise_bytes": creep.rise_bytes},
        )


class AllocatorRetries:
    """The allocator runs out of memory, frees its cache and tries again.

    What is true: during training, requests for device memory failed at first and were repeated after the cache had
    been flushed.

    Why it matters: each of these waits for the device and makes later requests slow; the next may fail for good.

    What to do: a smaller batch, activation checkpointing, or PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True where
    sizes vary.
    """

    kind: ClassVar[str] = "ALLOCATOR_RETRIES"
    supersedes: ClassVar[tuple[str, ...]] = ("GPU_MEMORY_PRESSURE",)

    def evaluate(self, memory: StepMemoryContext, policy: StepMemoryPolicy) -> Issue | Abstained | None:
        """Count retries after the first steps."""
        over = [one for one in memory.memory if policy.retries.severity(one.retries) is not None]
        if not over:
            return None
        worst = max(over, key=lambda one: one.retries)
        times = "once" if worst.retries == 1 else f"{count(worst.retries)} times"
        return Issue(
            kind=self.kind,
            severity="warning",
            section="step_memory",
            summary=f"The device's memory was full {times}: the allocator flushed its cache and tried again.",
            action="Use a smaller batch or activation checkpointing, or set "
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True.",
            ranks=tuple(one.rank for one in over),
            evidence={"retries": worst.retries, "peak_allocated_bytes": worst.peak_allocated_bytes},
        )


class GpuMemoryPressure:
    """Training uses nearly all memory of the device.

    What is true: at its highest, what was in use came close to what the device has.

    Why it matters: a longer sequence or a larger batch ends the run.

    What to do: a smaller batch with gradient accumulation, activation checkpointing, mixed precision, or a sharded
    optimizer; leave it if the sizes never change.
    """

    kind: ClassVar[str] = "GPU_MEMORY_PRESSURE"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, memory: StepMemoryContext, policy: StepMemoryPolicy) -> Issue | Abstained | None:
        """Judge the peak as a share of the device's memory."""
        if not memory.memory:
            return None
        known = [(one, one.pressure_share) for one in memory.memory if one.pressure_share is not None]
        if not known:
            return Abstained(("the size of the device's memory",))
        over = [one for one, share in known if policy.pressure_share.severity(share) is not None]
        if not over:
            return None
        worst = max(over, key=lambda one: one.pressure_share or 0.0)
        return Issue(
            kind=self.kind,
            severity="warning",
            section="step_memory",
            summary=f"Training used {byte_size(worst.peak_allocated_bytes)} of device memory at its highest, "
            f"{percent(worst.pressure_share)} of what there is.",
            action="Use a smaller batch with accumulation, activation checkpointing or mixed precision.",
            ranks=tuple(one.rank for one in over),
            evidence={"peak_allocated_bytes": worst.peak_allocated_bytes, "total_bytes": worst.total_bytes},
        )


class GpuMemoryImbalance:
    """Some ranks need much more device memory than others.

    What is true: the peaks of the ranks differ by a large part of the device's memory.

    Why it matters: the batch size of all ranks is bounded by the fullest one.

    What to do: balance the lengths of sequences over ranks, spread the layers of a pipeline more evenly, and look for
    what only rank 0 keeps (losses, predictions, an extra copy of the model).
    """

    kind: ClassVar[str] = "GPU_MEMORY_IMBALANCE"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, memory: StepMemoryContext, policy: StepMemoryPolicy) -> Issue | Abstained | None:
        """Compare the fullest rank with the emptiest; one rank alone is balanced."""
        if len(memory.memory) < 2:
            return None
        fullest = max(memory.memory, key=_peak)
        emptiest = min(memory.memory, key=_peak)
        apart = _peak(fullest) - _peak(emptiest)
        severity = policy.imbalance_share.severity(apart / max(_peak(fullest), 1))
        if severity is None or apart < policy.imbalance_of_total * (fullest.total_bytes or 0):
            return None
        return Issue(
            kind=self.kind,
            severity=severity,
            section="step_memory",
            summary=f"Rank {fullest.rank} needs {byte_size(_peak(fullest))} of device memory, rank {emptiest.rank} "
            f"only {byte_size(_peak(emptiest))}.",
            action="Balance what the ranks are given, and look for what only the fullest rank keeps.",
            ranks=(fullest.rank,),
            evidence={"largest_bytes": _peak(fullest), "smallest_bytes": _peak(emptiest), "emptiest": emptiest.rank},
        )


class NoGpu:
    """Training ran on the CPU, so there is no device memory to judge."""

    kind: ClassVar[str] = "NO_GPU"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, memory: StepMemoryContext, policy: StepMemoryPolicy) -> Issue | Abstained | None:
        """Say so where the device is known to be the CPU."""
        if memory.memory or memory.run.device != "cpu":
            return None
        return Issue(
            kind=self.kind,
            severity="info",
            section="step_memory",
            summary="Training ran on the CPU: there is no device memory to judge.",
            action="Nothing to do.",
        )


RULES: tuple[Rule[StepMemoryContext, StepMemoryPolicy], ...] = (
    GpuMemoryCreep(),
    AllocatorRetries(),
    GpuMemoryPressure(),
    GpuMemoryImbalance(),
    NoGpu(),
)


def _peak(memory: RankMemory) -> int:
    return memory.peak_allocated_bytes
