"""The process rules, in order of priority at the end of the file."""

from __future__ import annotations

from typing import ClassVar

from traceml_core.core.units import byte_size, count, percent, seconds
from traceml_core.diagnostics.judgement import Abstained, Rule
from traceml_core.diagnostics.memory_creep import Creep
from traceml_core.diagnostics.model import Issue, Risk, Severity
from traceml_core.diagnostics.process.context import ProcessContext
from traceml_core.diagnostics.process.policy import ProcessPolicy


class HostMemoryCreep:
    """Host memory grows with every step and is not given back.

    What is true: after warm-up the resident memory of the training process, or of its loader workers, rises steadily;
    what was released in between is less than what was taken. Pages of mapped files do not count, nor do a plateau, a
    saw-tooth or a single jump.

    Why it matters: the run ends when the job's memory limit is reached, often hours later and without a traceback.

    What to do: look for a list or dict that grows: losses kept with their graph (keep `loss.item()` or
    `loss.detach()`), predictions gathered over the epoch, histories of metrics. In the loader's workers: a dataset
    that caches what it has read.
    """

    kind: ClassVar[str] = "HOST_MEMORY_CREEP"
    supersedes: ClassVar[tuple[str, ...]] = ("HIGH_PROCESS_MEMORY",)

    def evaluate(self, process: ProcessContext, policy: ProcessPolicy) -> Issue | Abstained | None:
        """Name where memory grows fastest: the main process or the workers, and on which ranks."""
        if "rss_bytes" not in process.metrics:
            return Abstained(("resident memory",))
        in_workers = _fastest(process.workers_creep) > _fastest(process.creep)
        creeping = process.workers_creep if in_workers else process.creep
        if not creeping:
            return None
        worst = max(creeping.values(), key=lambda creep: creep.bytes_per_step)
        risk = _risk(creeping, process)
        severity: Severity = "warning"
        if risk is not None and risk.steps_left * worst.s_per_step <= policy.creep.critical_s_left:
            severity = "critical"
        where = "the loader's workers" if in_workers else "the training process"
        return Issue(
            kind=self.kind,
            severity=severity,
            section="process",
            summary=f"Memory of {where} grows by {byte_size(worst.bytes_per_step)} a step, "
            f"{byte_size(worst.rise_bytes)} so far{_until_full(risk, worst)}.",
            action=_LOOK_IN_WORKERS if in_workers else _LOOK_IN_TRAINING,
            risk=risk,
            ranks=tuple(sorted(creeping)),
            evidence={
                "where": "workers" if in_workers else "main",
                "bytes_per_step": worst.bytes_per_step,
                "rise_bytes": worst.rise_bytes,
                "first_step": worst.first_step,
                "last_step": worst.last_step,
            },
        )


class HighProcessMemory:
    """The processes of this run hold most of the memory that the job may use.

    What is true: the ranks of one host and their loader workers together came close to the job's memory limit there.
    Pages of mapped files do not count, and what forked workers share with their parent no more than was in use.

    Why it matters: the next larger batch, cache or validation set can end the run without a traceback.

    What to do: fewer loader workers or a smaller prefetch_factor, memory-mapped data instead of copies, or a larger
    limit for the job.
    """

    kind: ClassVar[str] = "HIGH_PROCESS_MEMORY"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, process: ProcessContext, policy: ProcessPolicy) -> Issue | Abstained | None:
        """Judge the processes' memory as a share of the job's limit."""
        known = [(host.held_share, host) for host in process.hosts if host.held_share is not None]
        if not known:
            return Abstained(("resident memory and the job's limit",))
        share, fullest = max(known, key=lambda pair: pair[0])
        severity = policy.memory_share.severity(share)
        if severity is None:
            return None
        return Issue(
            kind=self.kind,
            severity=severity,
            section="process",
            summary=f"Training and its workers hold {byte_size(fullest.held_bytes or 0)}, {percent(share)} of the "
            f"memory that this job may use.",
            action="Use fewer loader workers or a smaller prefetch_factor, or give the job more memory.",
            evidence={"memory_bytes": fullest.held_bytes, "limit_bytes": fullest.limit_bytes},
        )


class HighProcessCpu:
    """Training uses all the CPUs that the job has.

    What is true: the training processes keep nearly every CPU of the job busy.

    Why it matters: where the device is a GPU, the host is then what holds it up, and loader workers compete with the
    training thread. Where the device is the CPU, this is how it should be.

    What to do: fewer threads (OMP_NUM_THREADS), fewer loader workers, cheaper transforms, or more CPUs.
    """

    kind: ClassVar[str] = "HIGH_PROCESS_CPU"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, process: ProcessContext, policy: ProcessPolicy) -> Issue | Abstained | None:
        """Judge CPU time as a share of the job's CPUs; info only where the device is the CPU."""
        if process.cpu_share is None:
            return Abstained(("CPU time of the process",))
        severity = policy.cpu_share.severity(process.cpu_share)
        if severity is None or process.samples < policy.smallest_samples:
            return None
        expected = not process.run.on_accelerator
        action = "Use fewer threads (OMP_NUM_THREADS) or loader workers, or give the job more CPUs."
        return Issue(
            kind=self.kind,
            severity="info" if expected else severity,
            section="process",
            summary=f"The run keeps {percent(min(process.cpu_share, 1.0))} of the job's CPUs busy.",
            action="Nothing to do: the CPU is the device here." if expected else action,
            evidence={"cpu_share": process.cpu_share, "cpus": process.cpus},
        )


class GpuMemoryReservedOverhang:
    """PyTorch's allocator holds much more device memory than training ever used.

    What is true: what is reserved is far above the highest use, so the memory is split into blocks that do not fit
    what is asked for (fragmentation), or one single step needed much more than all others.

    Why it matters: other processes cannot have it, and training can run out of memory while much of it is free.

    What to do: set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True, and pad sequences to a few fixed lengths.
    """

    kind: ClassVar[str] = "GPU_MEMORY_RESERVED_OVERHANG"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, process: ProcessContext, policy: ProcessPolicy) -> Issue | Abstained | None:
        """Compare reserved memory with the highest use; without an allocator to look at there is nothing to judge."""
        over = []
        for reserve in process.reserves:
            overhang = reserve.reserved_bytes - reserve.allocated_bytes
            of_total = overhang / reserve.total_bytes if reserve.total_bytes else None
            severity = policy.overhang_of_total.severity(of_total)
            if severity is not None and overhang >= policy.overhang_of_reserved * reserve.reserved_bytes:
                over.append((overhang, reserve))
        if not over:
            return None
        overhang, worst = max(over, key=lambda pair: pair[0])
        return Issue(
            kind=self.kind,
            severity="warning",
            section="process",
            summary=f"PyTorch reserves {byte_size(worst.reserved_bytes)} of device memory and never used more than "
            f"{byte_size(worst.allocated_bytes)} of it.",
            action="Set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True, and pad batches to a few fixed sizes.",
            ranks=tuple(sorted(reserve.rank for _, reserve in over)),
            evidence={"reserved_bytes": worst.reserved_bytes, "allocated_bytes": worst.allocated_bytes},
        )


RULES: tuple[Rule[ProcessContext, ProcessPolicy], ...] = (
    HostMemoryCreep(),
    HighProcessMemory(),
    GpuMemoryReservedOverhang(),
    HighProcessCpu(),
)


def _fastest(creeping: dict[int, Creep]) -> float:
    return max((creep.bytes_per_step for creep in creeping.values()), default=0.0)


def _risk(creeping: dict[int, Creep], process: ProcessContext) -> Risk | None:
    """How many steps fit between what the job holds and its limit, on the host where that is least."""
    risks = []
    for host in process.hosts:
        mine = [creeping[rank] for rank in host.ranks if rank in creeping]
        if not mine or host.limit_bytes is None:
            continue
        used = host.used_bytes if host.used_bytes is not None else sum(creep.last_bytes for creep in mine)
        room = max(host.limit_bytes - used, 0)
        pace = sum(creep.bytes_per_step for creep in mine)
        risks.append(Risk(limit_bytes=host.limit_bytes, steps_left=int(room / pace)))
    return min(risks, key=lambda risk: risk.steps_left, default=None)


def _until_full(risk: Risk | None, worst: Creep) -> str:
    if risk is None:
        return ""
    left = f"{count(risk.steps_left)} steps ({seconds(risk.steps_left * worst.s_per_step)})"
    return f"; at this pace the limit is reached in {left}"


_LOOK_IN_TRAINING = (
    "Look for a list or dict that grows with every step: keep loss.item() instead of loss, and do not gather outputs "
    "over the epoch."
)
_LOOK_IN_WORKERS = "Look for what the dataset keeps of the samples it has read: a cache, a list, open files."
