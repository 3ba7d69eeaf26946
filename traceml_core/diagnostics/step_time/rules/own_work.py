"""Rules on the model's own work, on the host that cannot keep up with the device, and on time that nothing claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from traceml_core.core.phases import Phase
from traceml_core.core.units import count, milliseconds, percent
from traceml_core.diagnostics.judgement import Abstained
from traceml_core.diagnostics.model import Issue
from traceml_core.diagnostics.step_time.context import StepTimeContext
from traceml_core.diagnostics.step_time.policy import StepTimePolicy
from traceml_core.diagnostics.step_time.step_table import IN_STEP

COMPUTE = (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER)


class LaunchBound:
    """The device waits for the host to launch its work.

    What is true: in forward and in backward the device is done as soon as the host is: it has nothing left to do and
    follows the host's launches. Were its kernels what takes the time, the host would be ahead. Many small kernels,
    Python between them, or device values read in between (`.item()`, printing a loss) cause this.

    Why it matters: a faster device would not help; it already idles. How much is known where its utilisation was
    sampled long enough; otherwise this is no more than a hint.

    What to do: torch.compile (mode='reduce-overhead' captures CUDA graphs), larger batches, a fused optimizer, and no
    device values read inside the step.
    """

    kind: ClassVar[str] = "LAUNCH_BOUND"
    supersedes: ClassVar[tuple[str, ...]] = ("COMPUTE_BOUND",)

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Compare host and device time of forward and backward; on a CPU there is nothing to compare."""
        if not steps.run.on_accelerator:
            return None
        if not steps.host_ms:
            return Abstained(("device time",))
        passes = [(_total(steps.host_ms, phases), _total(steps.mean_ms, phases)) for phases in _PASSES]
        follows = all(abs(host - device) <= policy.launch_host_to_device * max(host, device) for host, device in passes)
        device_ms, step_ms = sum(device for _, device in passes), steps.mean_ms["step_time"]
        if not follows or device_ms < policy.compute_share_of_step * step_ms:
            return None
        lost_s = _idle_seconds(steps, device_ms)
        severity = policy.launch_share.severity(None if lost_s is None else lost_s / steps.training_s)
        if lost_s is not None and severity is None:
            return None
        idles = "" if lost_s is None else f" and idles for {percent(lost_s / steps.training_s)} of training"
        return Issue(
            kind=self.kind,
            severity=severity or "info",
            section="step_time",
            summary=f"The device waits for the host to launch its work{idles}: forward and backward take both "
            f"{milliseconds(device_ms)} of {milliseconds(step_ms)}.",
            action="Use torch.compile or larger batches, and read no device values (.item(), print) inside the step.",
            impact_share=None if lost_s is None else steps.share_of_run(lost_s),
            evidence={
                "host_ms": sum(host for host, _ in passes),
                "device_ms": device_ms,
                "step_time_ms": step_ms,
                "gpu_busy_share": steps.gpu_busy_share,
            },
        )


class UnattributedHeavy:
    """Much of a step is claimed by no phase.

    What is true: between fetching the batch and the end of the step, time passes in code that is neither the copy,
    forward, backward nor the optimizer: code of your own in the loop, a trainer subclass, or work of the framework.

    Why it matters: it is part of every step, and no framework profile shows it.

    What to do: look at what your loop, or your subclass of the trainer, does beside these phases; metrics computed at
    every step and reads of device values are common. In a hand-written loop name it with `run.phase(...)`.
    """

    kind: ClassVar[str] = "UNATTRIBUTED_HEAVY"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Judge unattributed time as a share of training time; what was not measured lies in it, and forbids that."""
        hidden = [key for key in steps.run.unmeasured if key != Phase.GRAD_SYNC.key]
        if hidden:
            return Abstained(tuple(key.replace("_", " ") for key in hidden))
        share = steps.share_of_training(Phase.UNATTRIBUTED)
        severity = policy.unattributed_share.severity(share)
        if severity is None:
            return None
        unclaimed_ms = steps.mean_ms[Phase.UNATTRIBUTED.key]
        if unclaimed_ms < policy.smallest_unattributed_ms:
            return None
        return Issue(
            kind=self.kind,
            severity=severity,
            section="step_time",
            summary=f"{percent(share)} of training, {milliseconds(unclaimed_ms)} a step, belongs to no phase.",
            action="Look at what runs inside a step beside forward, backward and optimizer: metrics computed at every "
            "step, values read from the device, code of your own in the loop.",
            impact_share=steps.share_of_run(steps.habitual_s[Phase.UNATTRIBUTED.key]),
            evidence={"unattributed_share": share, "unattributed_ms": unclaimed_ms},
        )


class ComputeBound:
    """The model's own work fills the step: this is how a healthy run looks.

    What is true: forward, backward and the optimizer take most of a step, and the largest of them is named.

    Why it matters: nothing is in the way. To train faster, the model's own work must become cheaper.

    What to do: mixed precision and torch.compile for forward and backward, a fused optimizer or accumulation for the
    optimizer, larger batches where memory allows, or a faster device.
    """

    kind: ClassVar[str] = "COMPUTE_BOUND"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Name the largest of the three; abstain where one that was not measured could be larger."""
        known_s = {phase.key: steps.habitual_s[phase.key] for phase in COMPUTE if phase.key in steps.habitual_s}
        missing = tuple(phase.label for phase in COMPUTE if phase.key not in known_s)
        largest = max(known_s, key=lambda key: known_s[key]) if known_s else None
        if missing and (largest is None or known_s[largest] <= steps.habitual_s.get(Phase.UNATTRIBUTED.key, 0.0)):
            return Abstained(missing)
        step_s = sum(steps.habitual_s.get(phase.key, 0.0) for phase in IN_STEP)
        compute_share = sum(known_s.values()) / step_s if step_s > 0 else 0.0
        if largest is None or compute_share < policy.compute_share_of_step:
            return None
        typical_ms = {key: steps.metrics[f"{key}_ms"].median for key in (*known_s, "step_time")}
        return Issue(
            kind=self.kind,
            severity="info",
            section="step_time",
            summary=f"The model's own work is {percent(compute_share)} of a step; {largest} is the largest part, "
            f"{milliseconds(typical_ms[largest])} of {milliseconds(typical_ms['step_time'])}.",
            action=f"To make the steps themselves faster, {_cheaper(largest, steps)}.",
            evidence={
                "phase": largest,
                "compute_share": compute_share,
                **{f"{key}_ms": value for key, value in typical_ms.items()},
            },
        )


class Warmup:
    """There are too few steps after warm-up to judge.

    What is true: the first steps build, compile and tune things, and are slower than the rest. They are set apart, and
    what is left is too little to tell a habit from chance.

    What to do: train for some more steps; a few dozen are enough.
    """

    kind: ClassVar[str] = "WARMUP"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Say how many steps there are and how many it takes."""
        missing = policy.minimum_steps - steps.judged_steps
        if missing <= 0:
            return None
        return Issue(
            kind=self.kind,
            severity="info",
            section="step_time",
            summary=f"{_few(steps)} too few to judge.",
            action=f"Train for at least {count(missing)} more {'step' if missing == 1 else 'steps'}.",
            evidence={"steps": steps.steps, "warmup_steps": steps.warmup_steps},
        )


def _few(steps: StepTimeContext) -> str:
    if steps.steps == 1:
        return "1 step is"
    warmup = f", {count(steps.warmup_steps)} of them warm-up, are" if steps.warmup_steps else " are"
    return f"{count(steps.steps)} steps{warmup}"


def _total(times_ms: Mapping[str, float], phases: tuple[Phase, ...]) -> float:
    return sum(times_ms.get(phase.key, 0.0) for phase in phases)


def _idle_seconds(steps: StepTimeContext, device_ms: float) -> float | None:
    """Seconds in forward and backward without a kernel running; null where utilisation is not known."""
    if steps.gpu_busy_share is None or steps.training_s <= 0:
        return None
    idle_s = (1 - steps.gpu_busy_share) * steps.training_s - steps.habitual_s.get(Phase.INPUT_WAIT.key, 0.0)
    return min(max(idle_s, 0.0), device_ms / 1e3 * steps.judged_steps)


# The device's part of the wait for gradients lies in its backward where their arrival was seen on the host only.
_PASSES = ((Phase.FORWARD,), (Phase.BACKWARD, Phase.GRAD_SYNC))


def _cheaper(phase_key: str, steps: StepTimeContext) -> str:
    if phase_key == Phase.OPTIMIZER.key:
        return "use a fused optimizer (fused=True) or update less often (gradient accumulation, larger batches)"
    if not steps.run.on_accelerator:
        return f"train on a GPU, or make {phase_key} cheaper: torch.compile, a smaller model, more threads"
    facts = steps.run.facts
    full = facts is not None and facts.precision is not None and facts.precision.startswith(("32", "no", "fp32"))
    return f"make {phase_key} cheaper: {'bf16 mixed precision, ' if full else ''}torch.compile, larger batches"
