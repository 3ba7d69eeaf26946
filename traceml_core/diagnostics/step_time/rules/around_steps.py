"""Rules on what happens between steps: callbacks, checkpoints, validation and logging."""

from __future__ import annotations

from typing import ClassVar

from traceml_core.core.phases import Phase
from traceml_core.core.units import count, milliseconds, percent
from traceml_core.diagnostics.judgement import Abstained
from traceml_core.diagnostics.model import Issue
from traceml_core.diagnostics.step_time.advice import log_less, save_less, validate_less
from traceml_core.diagnostics.step_time.context import StepTimeContext
from traceml_core.diagnostics.step_time.owners import OwnerTime
from traceml_core.diagnostics.step_time.policy import StepTimePolicy
from traceml_core.diagnostics.thresholds import Threshold


class CallbackHeavy:
    """Callbacks take a large part of training.

    What is true: code that the trainer calls around each step, by the name given, holds the training thread.

    Why it matters: the model waits for it, on every step that it runs in.

    What to do: let the named callback do its work every so many steps, move it to a thread, or make it cheaper. Its
    longest time and how often it ran are in the evidence.
    """

    kind: ClassVar[str] = "CALLBACK_HEAVY"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Judge the callback that takes most, and all of them together."""
        total_s = steps.habitual_s.get(Phase.CALLBACKS.key)
        if total_s is None:
            return Abstained(("the time of callbacks",))
        owners = steps.owners_of(Phase.CALLBACKS)
        largest_s = min(max((owner.habitual_s for owner in owners), default=total_s), total_s)
        alone = policy.callback_share.severity(_share(steps, largest_s))
        together = policy.all_callbacks_share.severity(_share(steps, total_s))
        severity = alone or together
        if severity is None:
            return None
        named = [owner for owner in owners if owner.habitual_s >= policy.named_owner_share * total_s]
        spent_s = min(sum(owner.habitual_s for owner in named) or total_s, total_s)
        who = _names(named) or "Callbacks"
        verb = "take" if len(named) != 1 else "takes"
        return Issue(
            kind=self.kind,
            severity=severity,
            section="step_time",
            summary=f"{who} {verb} {percent(_share(steps, spent_s))} of training.",
            action=f"Let {who if named else 'callbacks'} run every so many steps, or do less each time.",
            impact_share=steps.share_of_run(spent_s),
            evidence={"callbacks_share": _share(steps, total_s), "callbacks_s": total_s, "owners": _table(owners)},
        )


class CheckpointHeavy:
    """Saving checkpoints takes a large part of training.

    What is true: training stops while the model and the optimizer are written.

    Why it matters: saved seldom, a checkpoint costs nothing that counts; saved often, it is most of the run.

    What to do: save less often, save weights only, or write to a faster disk.
    """

    kind: ClassVar[str] = "CHECKPOINT_HEAVY"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Judge the time of checkpoints, as a share of training time."""
        how = f"Save less often: {save_less(steps.run.framework)}."
        return _around(self.kind, Phase.CHECKPOINT, "Saving checkpoints", how, policy.checkpoint_share, steps)


class ValidationHeavy:
    """Validation takes a large part of training.

    What is true: training stops while the model is evaluated on held-out data.

    Why it matters: a curve needs points, but not this many.

    What to do: validate less often or on fewer batches; a larger validation batch needs no gradients and fits.
    """

    kind: ClassVar[str] = "VALIDATION_HEAVY"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Judge the time of validation, as a share of training time."""
        how = f"Validate less: {validate_less(steps.run.framework)}."
        return _around(self.kind, Phase.VALIDATION, "Validation", how, policy.validation_share, steps)


class LoggingHeavy:
    """Logging takes a large part of training.

    What is true: the training thread waits while metrics are gathered and written to loggers or trackers.

    Why it matters: a tracker over the network, or an image logged at every step, can cost more than the step.

    What to do: log after more steps, log less each time, or use a logger that writes in the background.
    """

    kind: ClassVar[str] = "LOGGING_HEAVY"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Judge the time of logging, as a share of training time."""
        how = f"Log less often: {log_less(steps.run.framework)}."
        return _around(self.kind, Phase.LOGGING, "Logging", how, policy.logging_share, steps)


def _around(
    kind: str, phase: Phase, what: str, action: str, threshold: Threshold, steps: StepTimeContext
) -> Issue | Abstained | None:
    share = steps.share_of_training(phase)
    if share is None:
        return Abstained((f"the time of {phase.label}",))
    severity = threshold.severity(share)
    if severity is None:
        return None
    spent_s, times = steps.habitual_s[phase.key], steps.occasions[phase.key]
    each = milliseconds(spent_s * 1e3 / times)
    return Issue(
        kind=kind,
        severity=severity,
        section="step_time",
        summary=f"{what} takes {percent(share)} of training: {count(times)} times {each}.",
        action=action,
        impact_share=steps.share_of_run(spent_s),
        evidence={
            f"{phase.key}_share": share,
            f"{phase.key}_s": spent_s,
            "occasions": times,
            "owners": _table(steps.owners_of(phase)),
        },
    )


def _share(steps: StepTimeContext, spent_s: float) -> float:
    return min(spent_s / steps.training_s, 1.0) if steps.training_s > 0 else 0.0


def _names(owners: list[OwnerTime]) -> str:
    return " and ".join(owner.owner for owner in owners)


def _table(owners: list[OwnerTime]) -> list[dict[str, object]]:
    return [
        {"owner": one.owner, "spent_s": one.spent_s, "longest_s": one.longest_s, "steps": one.steps}
        for one in owners[:5]
    ]
