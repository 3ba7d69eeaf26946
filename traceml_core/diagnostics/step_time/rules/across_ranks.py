"""Rules on ranks that wait for each other: for one that lags, or for the network alike."""

from __future__ import annotations

from typing import Any, ClassVar

from traceml_core.core.phases import AROUND_STEP_PHASES, Phase
from traceml_core.core.units import milliseconds, percent, rank_ranges, seconds
from traceml_core.diagnostics.judgement import Abstained
from traceml_core.diagnostics.model import Issue, Severity
from traceml_core.diagnostics.step_time.context import StepTimeContext
from traceml_core.diagnostics.step_time.policy import StepTimePolicy
from traceml_core.diagnostics.step_time.ranks_apart import RanksApart, lag_thresholds
from traceml_core.diagnostics.thresholds import Threshold

_SYNC = ("the wait for gradients",)
_OTHERS = ("the work of the other ranks",)


class InputStraggler:
    """One rank gets its batches later than the others, and all of them wait for it.

    What is true: the step begins late on the rank that is named, because its batch is not there; the other ranks have
    theirs, and wait in the exchange of gradients. What every rank waits for its data alike is INPUT_BOUND.

    Why it matters: a job is as fast as its slowest rank. The cost is paid by every rank, and grows with their number.

    What to do: compare that rank's data with the others': larger samples or a larger shard, a slower disk or mount, a
    node whose CPUs are busy with something else, fewer loader workers. Where it is another rank at each step
    (rotating), even out what it takes to make a batch, or let more workers prepare more of them ahead.
    """

    kind: ClassVar[str] = "INPUT_STRAGGLER"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Judge the lag that comes from waiting for data. Waits in turn on ranks that all wait are INPUT_BOUND."""
        apart = _laggard(steps, (Phase.INPUT_WAIT,))
        if not isinstance(apart, RanksApart):
            return apart
        all_wait = policy.input_share.severity(steps.share_of_training(Phase.INPUT_WAIT)) is not None
        if apart.pattern == "rotating" and all_wait:
            return None
        who = rank_ranges(apart.ranks)
        action = (
            f"Look at what {who} reads and from where: the sizes in its shard, its disk, its node's CPUs, its workers."
        )
        if apart.pattern == "rotating":
            action = "Even out what a batch takes to make, or let more loader workers prepare more of them ahead."
        return _issue(self.kind, apart, action, steps, policy)


class H2dStraggler:
    """Batches reach the device later on one rank than on the others, and all of them wait for it.

    What is true: the copy to the device takes longer on the rank that is named; the other ranks are done with theirs,
    and wait in the exchange of gradients.

    Why it matters: a job is as fast as its slowest rank. The cost is paid by every rank, and grows with their number.

    What to do: compare that rank's path to its device with the others': a PCIe link that fell back to fewer lanes, a
    process bound to the CPUs of the other socket, memory that is not pinned, larger batches.
    """

    kind: ClassVar[str] = "H2D_STRAGGLER"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Judge the lag that comes from the copy to the device."""
        apart = _laggard(steps, (Phase.H2D,))
        if not isinstance(apart, RanksApart):
            return apart
        action = (
            f"Compare how batches reach the device of {rank_ranges(apart.ranks)}: pinned memory, link, CPU binding."
        )
        if apart.pattern == "rotating":
            action = "Even out the sizes of batches, and set pin_memory=True so that copies need not wait for the host."
        return _issue(self.kind, apart, action, steps, policy)


class ComputeStraggler:
    """One rank computes longer than the others, and all of them wait for it.

    What is true: forward, or the rank's own backward up to its last gradient (the evidence says which), takes longer
    on the rank that is named. Its own wait for gradients is short, that of the others long.

    Why it matters: a job is as fast as its slowest rank. The cost is paid by every rank, and grows with their number.

    What to do: look at the device of that rank (clocks, temperature, another process on it) and at its batches (longer
    sequences, more boxes). Where it is another rank at each step (rotating), even out the work: group samples by
    length, or fill batches up to a number of tokens.
    """

    kind: ClassVar[str] = "COMPUTE_STRAGGLER"
    supersedes: ClassVar[tuple[str, ...]] = ("COMPUTE_BOUND",)

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Judge the lag that comes from forward or backward; abstain where the wait for gradients is not known."""
        apart = _laggard(steps, (Phase.FORWARD, Phase.BACKWARD), needs_sync=True)
        if not isinstance(apart, RanksApart):
            return apart
        who = rank_ranges(apart.ranks)
        action = f"Look at the device of {who} (clocks, temperature, other processes), and at how long its samples are."
        if apart.pattern == "rotating":
            action = (
                "Even out the work of the ranks: group samples by length, or fill batches up to a number of tokens."
            )
        return _issue(self.kind, apart, action, steps, policy)


class Straggler:
    """One rank does something that the others do not, or do faster, and all of them wait for it.

    What is true: the lag of the rank that is named comes from its optimizer, from what is done around steps (callbacks,
    logging, checkpoints on one rank alone) or from time that no phase claims; the evidence says which.

    Why it matters: a job is as fast as its slowest rank. The cost is paid by every rank, and grows with their number.

    What to do: look at what runs on that rank alone, often rank 0: do it less often, or beside the training.
    """

    kind: ClassVar[str] = "STRAGGLER"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Judge a lag of any other cause, unless a rule on that cause speaks of the same seconds."""
        apart = _laggard(steps, (Phase.OPTIMIZER, Phase.UNATTRIBUTED, *AROUND_STEP_PHASES), needs_sync=True)
        if not isinstance(apart, RanksApart) or apart.phase is None:
            return None if isinstance(apart, RanksApart) else apart
        named: dict[Phase, Threshold] = {
            Phase.LOADER_START: policy.loader_restart_share,
            Phase.VALIDATION: policy.validation_share,
            Phase.CHECKPOINT: policy.checkpoint_share,
            Phase.LOGGING: policy.logging_share,
            Phase.CALLBACKS: policy.callback_share,
        }
        if apart.phase in named and named[apart.phase].severity(steps.share_of_training(apart.phase)):
            return None
        what = "time that no phase claims" if apart.phase is Phase.UNATTRIBUTED else apart.phase.label
        action = f"Look at what {rank_ranges(apart.ranks)} does there and the others do not: {what}."
        return _issue(self.kind, apart, action, steps, policy)


class CommunicationBound:
    """All ranks wait alike while gradients are exchanged.

    What is true: even the rank that comes last waits long between its own last gradient and the end of backward. No
    rank holds the others up: it is the exchange itself that takes the time.

    Why it matters: the share grows with the number of ranks, and eats what more of them should bring.

    What to do: exchange less often (gradient accumulation with no_sync, larger batches), exchange less (a bf16
    compression hook), let it run beside backward (other DDP bucket sizes), and check that the fast network is used.
    """

    kind: ClassVar[str] = "COMMUNICATION_BOUND"
    supersedes: ClassVar[tuple[str, ...]] = ()

    def evaluate(self, steps: StepTimeContext, policy: StepTimePolicy) -> Issue | Abstained | None:
        """Judge the wait for gradients that even the last rank has."""
        apart = _known(steps)
        if not isinstance(apart, RanksApart):
            return apart
        if apart.sync_share is None:
            return Abstained(_SYNC)
        on_device = steps.run.on_accelerator
        threshold = policy.communication_share if on_device else policy.communication_share_on_cpu
        severity = threshold.severity(apart.sync_share)
        if severity is None:
            return None
        if _has_gaps(apart):
            return Abstained(_OTHERS)  # one that was not measured may be whom all of these wait for
        interval_ms = steps.metrics["step_interval_ms"].mean
        sync_ms = apart.sync_share * interval_ms
        return Issue(
            kind=self.kind,
            severity=severity,
            section="step_time",
            summary=f"Every rank waits {milliseconds(sync_ms)} a step for the exchange of gradients, "
            f"{percent(apart.sync_share)} of training; none of them holds the others up.",
            action="Exchange gradients less often (accumulate, larger batches) or smaller (a bf16 compression hook), "
            "and check that the ranks use the fastest network they have.",
            impact_share=steps.share_of_run(sync_ms * apart.joined_steps / 1e3),
            evidence={
                "grad_sync_floor_ms": sync_ms,
                "grad_sync_floor_share": apart.sync_share,
                "lag_share": apart.lag_share,
                "ranks_joined": apart.ranks_joined,
                "world_size": apart.world_size,
            },
        )


def _known(steps: StepTimeContext) -> RanksApart | Abstained | None:
    """How far the ranks are apart; null in one process."""
    if steps.run.world_size < 2:
        return None
    return Abstained(_OTHERS) if steps.apart is None else steps.apart


def _laggard(
    steps: StepTimeContext, phases: tuple[Phase, ...], needs_sync: bool = False
) -> RanksApart | Abstained | None:
    """The story of a lag that comes from one of these phases; null where there is none."""
    apart = _known(steps)
    if not isinstance(apart, RanksApart):
        return apart
    if apart.pattern is not None and apart.phase in phases and apart.synchronous:
        return apart
    if _has_gaps(apart):
        return Abstained(_OTHERS)
    return Abstained(_SYNC) if needs_sync and apart.sync_share is None else None


def _has_gaps(apart: RanksApart) -> bool:
    """Whether a rank was not measured, or most steps lack the row of one: a laggard may be out of sight."""
    return apart.ranks_joined < apart.world_size or apart.incomplete_steps > apart.joined_steps


def _issue(kind: str, apart: RanksApart, action: str, steps: StepTimeContext, policy: StepTimePolicy) -> Issue:
    lag_s = apart.lag_ms * apart.joined_steps / 1e3
    return Issue(
        kind=kind,
        severity=_severity(apart, steps.run.on_accelerator, policy),
        section="step_time",
        summary=_summary(apart),
        action=action,
        impact_share=steps.share_of_run(lag_s),
        ranks=apart.ranks,
        evidence=_evidence(apart, lag_s, steps),
    )


def _severity(apart: RanksApart, on_accelerator: bool, policy: StepTimePolicy) -> Severity:
    if apart.pattern == "one-off":
        return "info"
    chronic, rotating = lag_thresholds(on_accelerator, policy)
    threshold = chronic if apart.pattern == "chronic" else rotating
    return threshold.severity(apart.lag_share) or "info"


def _summary(apart: RanksApart) -> str:
    who, phase = rank_ranges(apart.ranks), apart.phase.label if apart.phase is not None else ""
    cost = f"{milliseconds(apart.lag_ms)} a step, {percent(apart.lag_share)} of training"
    if apart.pattern == "rotating":
        return f"Another rank lags at each step, mostly in {phase}, and the others wait for it: {cost}. In turn: {who}."
    if apart.pattern == "one-off":
        held_s = apart.lag_ms * apart.joined_steps / 1e3
        return f"For a short while {who} held up the others, mostly in {phase}: {seconds(held_s)} in all."
    verb = "lags" if len(apart.ranks) == 1 else "lag"
    times = apart.phases.get(apart.phase.key) if apart.phase is not None else None
    than = f" ({milliseconds(times.rank_ms)}, the others {milliseconds(times.others_ms)})" if times is not None else ""
    return f"{who.capitalize()} {verb} in {phase}{than}, and the others wait: {cost}."


def _evidence(apart: RanksApart, lag_s: float, steps: StepTimeContext) -> dict[str, Any]:
    hosts = {rank.rank: rank.host for rank in steps.run.ranks}
    return {
        "pattern": apart.pattern,
        "phase": apart.phase.key if apart.phase is not None else None,
        "phase_share_of_lag": apart.phase_share,
        "lag_ms": apart.lag_ms,
        "lag_share": apart.lag_share,
        "lag_s": lag_s,
        "rank_hours": lag_s * apart.world_size / 3600,
        "ranks_share_of_lag": apart.ranks_share,
        "hosts": sorted({hosts[rank] for rank in apart.ranks if hosts.get(rank)})[:8],
        "worst_rank_ms": {key: times.rank_ms for key, times in apart.phases.items()},
        "other_ranks_ms": {key: times.others_ms for key, times in apart.phases.items()},
        "grad_sync_measured": apart.sync_share is not None,
        "joined_steps": apart.joined_steps,
        "incomplete_steps": apart.incomplete_steps,
        "ranks_joined": apart.ranks_joined,
        "world_size": apart.world_size,
    }
