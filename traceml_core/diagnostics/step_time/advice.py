"""What to change, in the words of the framework that trains: the names of its settings."""

from __future__ import annotations

import math

from traceml_core.core.units import count
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.diagnostics.step_time.context import StepTimeContext
from traceml_core.diagnostics.step_time.policy import StepTimePolicy

_VALIDATE_LESS = {
    "lightning": "raise val_check_interval or check_val_every_n_epoch, or lower limit_val_batches",
    "hf_trainer": "raise eval_steps (or eval_strategy='epoch'), or evaluate on a part of the data",
}
_SAVE_LESS = {
    "lightning": "raise ModelCheckpoint's every_n_train_steps, or save_weights_only=True",
    "hf_trainer": "raise save_steps (or save_strategy='epoch'), or save_only_model=True",
}
_LOG_LESS = {
    "lightning": "raise the Trainer's log_every_n_steps",
    "hf_trainer": "raise logging_steps",
}

_COPY_BESIDE = {
    "lightning": "",  # its copies are non-blocking as it is
    "hf_trainer": "set accelerator_config={'non_blocking': True} in TrainingArguments",
    "accelerate": "give the Accelerator a DataLoaderConfiguration(non_blocking=True)",
}


def validate_less(framework: str | None) -> str:
    """How to spend less time on validation."""
    return _VALIDATE_LESS.get(framework or "", "validate after more steps, or on fewer batches")


def save_less(framework: str | None) -> str:
    """How to spend less time on checkpoints."""
    return _SAVE_LESS.get(framework or "", "save after more steps, or save less at a time")


def log_less(framework: str | None) -> str:
    """How to spend less time on logging."""
    return _LOG_LESS.get(framework or "", "log after more steps")


def set_in_loader(framework: str | None, setting: str) -> str:
    """How to give the training loader a setting, such as `num_workers=2`."""
    if framework == "hf_trainer":
        return f"Set dataloader_{setting} in TrainingArguments"
    return f"Set {setting} in the training DataLoader"


def copy_faster(run: RunShape) -> str:
    """How to spend less time on the copy to the device, from what is known of the loader."""
    smaller = "move smaller types (uint8 images, int32 tokens) and convert on the device"
    if run.loader.pin_memory is False:
        return f"{set_in_loader(run.framework, 'pin_memory=True')}, and {smaller}."
    beside = _COPY_BESIDE.get(run.framework or "", "copy with non_blocking=True, so that the host need not wait")
    others = [beside] if beside else []
    if run.loader.pin_memory is None:
        others.append("check that pin_memory was not turned off in the training DataLoader")
    return "; ".join([f"{smaller[0].upper()}{smaller[1:]}", *others]) + "."


def feed_faster(steps: StepTimeContext, policy: StepTimePolicy) -> str:
    """How to get batches sooner, from what is known of the loader, the step and the job's CPUs."""
    workers, framework = steps.run.loader.num_workers, steps.run.framework
    if workers is None:
        return f"Prepare batches in more DataLoader workers (num_workers), and {_CHEAPER}."
    wanted = _workers_wanted(steps, workers)
    # Every rank gets the workers that are advised: those of a host have its CPUs between them.
    served = policy.largest_worker_advice if steps.cpus is None else int(steps.cpus / steps.run.ranks_a_host)
    useful = min(max(served, 1), policy.largest_worker_advice)
    if wanted <= useful:
        how = set_in_loader(framework, f"num_workers={wanted}")
        return f"{how} ({_now(workers)}); if that is not enough, {_CHEAPER}."
    if workers < useful:
        how = set_in_loader(framework, f"num_workers={useful}")
        return (
            f"{how} ({_now(workers)}), which this job's CPUs can serve; it will not be enough by itself, so {_CHEAPER}."
        )
    return f"The loader already has {count(workers)} workers, so {_CHEAPER}."


def _workers_wanted(steps: StepTimeContext, workers: int) -> int:
    """As many workers as make a batch in the time that the rest of a step takes."""
    step_ms, wait_ms = steps.mean_ms["step_time"], steps.mean_ms["input_wait"]
    rest_ms = max(step_ms - wait_ms, step_ms * 0.01)
    if workers == 0:
        return max(math.ceil(wait_ms / rest_ms), 2)
    return max(math.ceil(workers * step_ms / rest_ms), workers + 1)


def _now(workers: int) -> str:
    return "now 0: every batch is made in the training process" if workers == 0 else f"now {workers}"


_CHEAPER = "make a batch cheaper: move slow work out of the dataset's __getitem__ and the collate function"
