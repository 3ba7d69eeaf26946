"""Every threshold of the step_time diagnosis, and the policies by name."""

from __future__ import annotations

import msgspec

from traceml_core.diagnostics.thresholds import Threshold


class StepTimePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Shares are of training time: the run without start-up and warm-up.

    `minimum_steps`: fewer after warm-up are too few to judge. `habit_occasions`: what happened less often than this
    is an incident, not a habit, and its excess over the rest does not count. Below `short_run_s` start-up and warm-up
    are left out of the wall time that an impact is a share of.
    """

    minimum_steps: int = 8
    habit_occasions: int = 3
    short_run_s: float = 60.0
    series_blocks: int = 1_000
    histogram_bins: int = 60

    input_share: Threshold = Threshold(0.25, 0.50)
    h2d_share: Threshold = Threshold(0.15, 0.50)
    unattributed_share: Threshold = Threshold(0.20, 0.60)
    smallest_unattributed_ms: float = 1.0
    """Less than this in a step is what the framework itself takes; beside a tiny model that is much of a step."""

    callback_share: Threshold = Threshold(0.12, 0.50)
    all_callbacks_share: Threshold = Threshold(0.25, 0.50)
    logging_share: Threshold = Threshold(0.12, 0.50)
    checkpoint_share: Threshold = Threshold(0.15, 0.50)
    validation_share: Threshold = Threshold(0.10, 0.50)
    loader_restart_share: Threshold = Threshold(0.10, 0.50)
    straggler_share: Threshold = Threshold(0.10, 0.30)
    rotating_share: Threshold = Threshold(0.20, 0.50)
    one_off_share: Threshold = Threshold(0.25)
    communication_share: Threshold = Threshold(0.20, 0.50)
    straggler_share_on_cpu: Threshold = Threshold(0.30, 0.50)
    rotating_share_on_cpu: Threshold = Threshold(0.45, 0.65)
    communication_share_on_cpu: Threshold = Threshold(0.40, 0.60)
    """Ranks that train on a host's cores share them with the exchange and with whatever else runs: even equal ones lag
    then, each at its time, and wait."""

    straggler_certainty: float = 4.0
    """A rank lags for sure when its mean excess over the others is so many times what chance makes of it ..."""

    straggler_late_share: float = 0.90
    """... or when it is late in this share of the run's blocks: a single long stall makes no difference to that."""

    chronic_share_of_lag: float = 0.50
    """Ranks whose mean excess is this share of the mean lag are chronic stragglers."""

    rotating_share_of_even: float = 0.50
    """Ranks take part in a rotating lag with this share of what each would have, were the lags evenly divided."""

    one_off_blocks_share: float = 0.15
    """Lags that fill less than this share of the run's blocks are an incident."""

    named_owner_share: float = 0.25
    """An owner is named when this share of its phase's seconds is its own."""

    compute_share_of_step: float = 0.50
    launch_host_to_device: float = 0.15
    """A device whose forward and backward end with the host's, within this share of them, has nothing left to do."""

    launch_gpu_samples: int = 5
    launch_share: Threshold = Threshold(0.15, 0.50)

    largest_worker_advice: int = 16
    """No more loader workers than this are advised, whatever the arithmetic says."""

    warmup_share: float = 0.2
    warmup_minimum_bound: int = 3
    warmup_bound: int = 500
    warmup_slow_factor: float = 1.5
    warmup_slow_spreads: float = 8.0
    warmup_slow_share: float = 0.5


SUMMARY_STEP_TIME_POLICY = StepTimePolicy()
LIVE_STEP_TIME_POLICY = msgspec.structs.replace(SUMMARY_STEP_TIME_POLICY, minimum_steps=20, series_blocks=200)
