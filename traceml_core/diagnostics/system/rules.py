"""The system rules, in order of priority at the end of the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from traceml_core.core.units import percent
from traceml_core.diagnostics.judgement import Abstained, Rule
from traceml_core.diagnostics.model import Issue, Severity
from traceml_core.diagnostics.system.context import SystemContext
from traceml_core.diagnostics.system.gpu_load import GpuLoad
from traceml_core.diagnostics.system.policy import SystemPolicy


class HighHostMemory:
    """The memory that the job may use is nearly full.

    What is true: at its highest, all that runs in the job's part of the host (the machine, or its container's limit)
    took nearly all of its memory.

    Why it matters: at the limit the system ends a process, usually training, without a traceback.

    What to do: end what else runs there, use fewer loader workers, or give the job more memory.
    """

    kind: ClassVar[str] = "HIGH_HOST_MEMORY"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, system: SystemContext, policy: SystemPolicy) -> Issue | Abstained | None:
        """Judge the highest memory as a share of the job's limit."""
        if system.host_memory_share is None:
            return Abstained(("the host's memory",))
        severity = policy.host_memory_share.severity(system.host_memory_share)
        if severity is None:
            return None
        return Issue(
            kind=self.kind,
            severity=severity,
            section="system",
            summary=f"The host's memory was {percent(system.host_memory_share)} full at its highest.",
            action="Use fewer loader workers, end what else runs there, or give the job more memory.",
            evidence={"host_memory_share": system.host_memory_share, "limit_bytes": system.memory_limit_bytes},
        )


class GpuThrottled:
    """The GPU slows its clocks down to protect itself.

    What is true: at a good part of the looks, the driver had lowered the clocks for heat or for a weak power supply.

    Why it matters: every kernel takes longer, and on several GPUs all wait for the slowest.

    What to do: look at cooling and at the neighbours in the machine; tell whoever runs it.
    """

    kind: ClassVar[str] = "GPU_THROTTLED"
    supersedes: ClassVar[tuple[str, ...]] = ("HIGH_GPU_TEMPERATURE", "HIGH_GPU_POWER")

    def evaluate(self, system: SystemContext, policy: SystemPolicy) -> Issue | Abstained | None:
        """Judge the share of looks at which clocks were slowed."""
        found = _worst(system, policy, lambda gpu: gpu.throttled_share, policy.throttled_share.severity)
        if found is None or isinstance(found, Abstained):
            return found if found is None else Abstained(("the GPU's clocks",))
        gpu, severity = found
        return Issue(
            kind=self.kind,
            severity=severity,
            section="system",
            summary=f"GPU {gpu.index} slowed its clocks for heat or power {percent(gpu.throttled_share)} of the time.",
            action="Look at the machine's cooling and power, or tell whoever runs it.",
            ranks=(gpu.rank,),
            evidence={"gpu_index": gpu.index, "name": gpu.name, "throttled_share": gpu.throttled_share},
        )


class HighGpuTemperature:
    """A GPU runs close to the temperature at which it slows down.

    What is true: at its hottest, the GPU was within a few degrees of the driver's limit.

    Why it matters: a little more load or a warmer room, and its clocks go down.

    What to do: look at cooling; a lower power limit costs little speed and much heat.
    """

    kind: ClassVar[str] = "HIGH_GPU_TEMPERATURE"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, system: SystemContext, policy: SystemPolicy) -> Issue | Abstained | None:
        """Judge the high temperature against the driver's limit, or the policy's where it tells none."""

        def above_limit_c(gpu: GpuLoad) -> float | None:
            if gpu.temperature_c is None:
                return None
            limit_c = policy.gpu_temperature_c.warning
            if gpu.temperature_limit_c is not None:
                limit_c = gpu.temperature_limit_c - policy.gpu_temperature_to_limit_c
            return gpu.temperature_c - limit_c

        found = _worst(system, policy, above_limit_c, lambda above: "warning" if above >= 0 else None)
        if found is None or isinstance(found, Abstained):
            return found if found is None else Abstained(("the GPU's temperature",))
        gpu, severity = found
        return Issue(
            kind=self.kind,
            severity=severity,
            section="system",
            summary=f"GPU {gpu.index} reached {gpu.temperature_c:.0f} °C, close to where it slows down.",
            action="Look at the machine's cooling; a lower power limit costs little speed.",
            ranks=(gpu.rank,),
            evidence={"gpu_index": gpu.index, "temperature_c": gpu.temperature_c, "limit_c": gpu.temperature_limit_c},
        )


class HighGpuMemory:
    """The GPU's memory is nearly full, all its processes together.

    What is true: on average nearly all memory of the GPU is taken, by training, its allocator's cache, or others.

    Why it matters: what another process takes, training cannot have.

    What to do: see with nvidia-smi who holds it; where it is training alone, a smaller batch leaves room.
    """

    kind: ClassVar[str] = "HIGH_GPU_MEMORY"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, system: SystemContext, policy: SystemPolicy) -> Issue | Abstained | None:
        """Judge used memory as a share of what the GPU has."""
        found = _worst(system, policy, lambda gpu: gpu.memory_share, policy.gpu_memory_share.severity)
        if found is None or isinstance(found, Abstained):
            return found if found is None else Abstained(("the GPU's memory",))
        gpu, severity = found
        return Issue(
            kind=self.kind,
            severity=severity,
            section="system",
            summary=f"Memory of GPU {gpu.index} is {percent(gpu.memory_share)} full, all its processes together.",
            action="See with nvidia-smi who holds it; a smaller batch leaves room.",
            ranks=(gpu.rank,),
            evidence={"gpu_index": gpu.index, "gpu_memory_share": gpu.memory_share},
        )


class LowGpuUtilization:
    """The GPU idles most of the time.

    What is true: at most looks no kernel was running.

    Why it matters: the device is paid for and waits; the step_time section says for what.

    What to do: follow the first finding of step_time. Where there is none, larger batches or torch.compile.
    """

    kind: ClassVar[str] = "LOW_GPU_UTILIZATION"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, system: SystemContext, policy: SystemPolicy) -> Issue | Abstained | None:
        """Judge mean utilisation; a GPU that the run does not train on is not judged."""
        if not system.run.on_accelerator:
            return None

        def idle(gpu: GpuLoad) -> float | None:
            return None if gpu.utilization_percent is None else 100 - gpu.utilization_percent

        enough = 100 - policy.gpu_utilization_percent
        found = _worst(system, policy, idle, lambda percentage: "warning" if percentage > enough else None)
        if found is None or isinstance(found, Abstained):
            return found if found is None else Abstained(("the GPU's utilisation",))
        gpu, severity = found
        return Issue(
            kind=self.kind,
            severity=severity,
            section="system",
            summary=f"GPU {gpu.index} was busy only {percent((gpu.utilization_percent or 0) / 100)} of the time.",
            action="Follow the first finding of step_time; where there is none, try larger batches or torch.compile.",
            ranks=(gpu.rank,),
            evidence={"gpu_index": gpu.index, "gpu_utilization_percent": gpu.utilization_percent},
        )


class HighHostCpu:
    """All CPUs of the job are busy.

    What is true: on average nearly all CPU time that the job may use was used, by whatever runs there.

    Why it matters: where the device is a GPU, the training thread and the loader's workers then wait for each other.
    Where the device is the CPU, this is how it should be.

    What to do: fewer threads or workers, cheaper transforms, more CPUs.
    """

    kind: ClassVar[str] = "HIGH_HOST_CPU"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, system: SystemContext, policy: SystemPolicy) -> Issue | Abstained | None:
        """Judge mean CPU load; info only where the device is the CPU."""
        if system.host_cpu_percent is None:
            return Abstained(("the host's CPU load",)) if system.samples >= policy.smallest_samples else None
        severity = policy.host_cpu_percent.severity(system.host_cpu_percent)
        if severity is None or system.samples < policy.smallest_samples:
            return None
        expected = not system.run.on_accelerator
        action = "Use fewer loader workers or threads (OMP_NUM_THREADS), or give the job more CPUs."
        return Issue(
            kind=self.kind,
            severity="info" if expected else severity,
            section="system",
            summary=f"The job's CPUs are {percent(system.host_cpu_percent / 100)} busy.",
            action="Nothing to do: the CPU is the device here." if expected else action,
            evidence={"host_cpu_percent": system.host_cpu_percent, "cpus": system.cpus},
        )


class HighGpuPower:
    """The GPU draws all the power it may.

    What is true: on average the GPU is at its power limit, which is what a well-fed GPU does.

    Why it matters: its clocks are bounded by power, not by heat or by the host. It explains why two GPUs of the same
    name differ in speed.

    What to do: nothing, unless the limit was lowered by mistake (nvidia-smi -q -d POWER).
    """

    kind: ClassVar[str] = "HIGH_GPU_POWER"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, system: SystemContext, policy: SystemPolicy) -> Issue | Abstained | None:
        """Judge power as a share of its limit; never more than info."""
        found = _worst(system, policy, lambda gpu: gpu.power_share, policy.gpu_power_share.severity)
        if found is None or isinstance(found, Abstained):
            return found if found is None else Abstained(("the GPU's power",))
        gpu, _ = found
        return Issue(
            kind=self.kind,
            severity="info",
            section="system",
            summary=f"GPU {gpu.index} draws {percent(gpu.power_share)} of the power that it may.",
            action="Nothing to do, unless its power limit was lowered by mistake.",
            ranks=(gpu.rank,),
            evidence={"gpu_index": gpu.index, "power_share": gpu.power_share},
        )


RULES: tuple[Rule[SystemContext, SystemPolicy], ...] = (
    HighHostMemory(),
    GpuThrottled(),
    HighGpuTemperature(),
    HighGpuMemory(),
    LowGpuUtilization(),
    HighHostCpu(),
    HighGpuPower(),
)


def _worst(
    system: SystemContext,
    policy: SystemPolicy,
    measure: Callable[[GpuLoad], float | None],
    severity_of: Callable[[float], Severity | None],
) -> tuple[GpuLoad, Severity] | Abstained | None:
    """The GPU with the highest measure and how bad that is; abstains where GPUs were looked at and none tells it."""
    judged = [gpu for gpu in system.gpus if gpu.samples >= policy.smallest_samples]
    told = [(value, gpu) for gpu in judged if (value := measure(gpu)) is not None]
    if not told:
        return Abstained(()) if judged else None
    value, gpu = max(told, key=lambda pair: pair[0])
    severity = severity_of(value)
    return None if severity is None else (gpu, severity)
