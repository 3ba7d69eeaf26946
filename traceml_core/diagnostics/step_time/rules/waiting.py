"""Rules on training that waits for its batches: to be made, to be copied, or for workers to start again."""

from __future__ import annotations

from typing import ClassVar

from traceml_core.core.phases import Phase
from traceml_core.core.units import milliseconds, percent, seconds
from traceml_core.diagnostics.judgement import Abstained
from traceml_core.diagnostics.model import Issue
from traceml_core.diagnostics.step_time.advice import copy_faster, feed_faster, set_in_loader
from traceml_core.diagnostics.step_time.context import StepTimeContext
from traceml_core.diagnostics.step_time.policy import StepTimePolicy


class InputBound:
    """Training waits for data.

    What is true: when a step asks for its next batch, the batch is not there yet. The model and the device idle until
    the dataset, the collate function and the loader's workers have made it.

    Why it matters: nothing that makes the model faster helps while this lasts; the time is given back in full once
    batches are ready before they are asked for.

    What to do: let more DataLoader workers prepare batches (num_workers), up to the CPUs that the job has. If they are
    all busy already, make a batch cheaper: decode, resize or tokenise once instead of in every __getitem__, and keep
    the collate function to stacking. On slow storage, copy the data to a local disk first.
    """

    kind: ClassVar[str] = "INPUT_BOUND"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Judge the wait for data, as a share of training time."""
        share = steps.share_of_training(Phase.INPUT_WAIT)
        if share is None:
            return Abstained(("the wait for data",))
        severity = policy.input_share.severity(share)
        if severity is None:
            return None
        wait_ms, loader = steps.mean_ms[Phase.INPUT_WAIT.key], steps.run.loader
        return Issue(
            kind=self.kind,
            severity=severity,
            section="step_time",
            summary=f"After warm-up, training waits for data during {percent(share)} of its time, "
            f"{milliseconds(wait_ms)} a step.",
            action=feed_faster(steps, policy),
            impact_share=steps.share_of_run(steps.habitual_s[Phase.INPUT_WAIT.key]),
            evidence={
                "input_wait_share": share,
                "input_wait_ms": wait_ms,
                "step_time_ms": steps.mean_ms["step_time"],
                "num_workers": loader.num_workers,
                "prefetch_factor": loader.prefetch_factor,
                "cpus": steps.cpus,
            },
        )


class H2dBound:
    """Training waits for batches to be copied to the device.

    What is true: moving the batch from host to device memory takes a large part of every step.

    Why it matters: the copy can run beside the computation of the step before, and then costs nothing.

    What to do: move smaller types (uint8 images, int32 tokens) and convert on the device; keep what a step does not
    use out of the batch; copy with non_blocking=True from pinned memory (pin_memory=True in the DataLoader; the
    Hugging Face Trainer sets it unless told otherwise), so that the host need not wait.
    """

    kind: ClassVar[str] = "H2D_BOUND"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Judge the copy to the device, as a share of training time."""
        share = steps.share_of_training(Phase.H2D)
        if share is None:
            return Abstained(("the copy to the device",))
        severity = policy.h2d_share.severity(share)
        if severity is None:
            return None
        copy_ms = steps.mean_ms[Phase.H2D.key]
        action = copy_faster(steps.run)
        if not steps.run.on_accelerator:
            action = "Look at what moves or converts the batch before the step: on a CPU there is nothing to copy."
        return Issue(
            kind=self.kind,
            severity=severity,
            section="step_time",
            summary=f"Copying to the device takes {percent(share)} of training, {milliseconds(copy_ms)} a step.",
            action=action,
            impact_share=steps.share_of_run(steps.habitual_s[Phase.H2D.key]),
            evidence={"h2d_share": share, "h2d_ms": copy_ms, "step_time_ms": steps.mean_ms["step_time"]},
        )


class LoaderRestart:
    """The loader's workers are started anew at every epoch.

    What is true: without persistent workers, each epoch begins by starting worker processes and waiting for their
    first batch. The start of the very first epoch is start-up and does not count here.

    Why it matters: where epochs are short, the run spends its time on starting processes.

    What to do: set persistent_workers=True in the training DataLoader, or make epochs longer. Where neither is
    possible, fewer workers start faster.
    """

    kind: ClassVar[str] = "LOADER_RESTART"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Judge the time of the loader's later starts, as a share of training time."""
        share = steps.share_of_training(Phase.LOADER_START)
        if share is None:
            return Abstained(("the start of the loader",))
        severity = policy.loader_restart_share.severity(share)
        if severity is None:
            return None
        spent_s, loader = steps.habitual_s[Phase.LOADER_START.key], steps.run.loader
        how = set_in_loader(steps.run.framework, "persistent_workers=True")
        action = f"{how}, so that its workers live on between epochs."
        if loader.persistent_workers or loader.num_workers == 0:
            action = "Make epochs longer, or make what the dataset does when an epoch begins cheaper."
        return Issue(
            kind=self.kind,
            severity=severity,
            section="step_time",
            summary=f"Starting the loader anew for each epoch takes {percent(share)} of training, {seconds(spent_s)}.",
            action=action,
            impact_share=steps.share_of_run(spent_s),
            evidence={
                "loader_start_share": share,
                "loader_start_s": spent_s,
                "restarts": steps.occasions[Phase.LOADER_START.key],
                "num_workers": loader.num_workers,
                "persistent_workers": loader.persistent_workers,
            },
        )
