"""From the names of Lightning's profiled actions to phases: the one table of what means what."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_lightning.action_contexts import Epoch, Fetch, FitApart, InPhase, Nothing, OptimizerStep, ValidationBegins

NOTHING = Nothing()
STRATEGY_PHASES = {"batch_to_device": Phase.H2D, "training_step": Phase.FORWARD}
# Hooks of the user's module that are part of a phase which has a name of its own.
MODULE_PHASES = {"lr_scheduler_step": Phase.OPTIMIZER, "optimizer_zero_grad": Phase.OPTIMIZER}
FETCH = "train_dataloader_next"
# Hooks that are a part of saving or loading a checkpoint, and stay in it.
CHECKPOINT_HOOKS = ("on_save_checkpoint", "on_load_checkpoint")
# Hooks in which learning rate and batch size finders run the trainer's loop for their trials.
TRIAL_HOOKS = ("on_fit_start", "on_train_start", "on_train_epoch_start")


class ActionTable:
    """The context of every action, looked up by its name and made when it is first seen."""

    def __init__(
        self, trainer: Any, ours: type, clock: PhaseClock, steps: StepRecorder, bases: tuple[type, type, type]
    ):
        """`bases` are Lightning's `Callback`, `Checkpoint` and `LightningModule`; `ours` is TraceMLCallback."""
        self._trainer, self._ours, self._clock, self._steps = trainer, ours, clock, steps
        self._callback, self._checkpoint, self._module = bases
        self._fetch = Fetch(clock, steps, lambda: starts_workers(trainer))
        self._contexts: dict[str, Any] = {
            "run_training_epoch": Epoch(clock, self._fetch),
            "save_checkpoint": InPhase(clock, Phase.CHECKPOINT),
            "optimizer_step": OptimizerStep(clock, steps),
        }
        self.known: Callable[[str], Any] = self._contexts.get

    def mute(self) -> None:
        """From now on no action means anything."""
        self.known = _nothing

    def hear(self) -> None:
        """Actions mean what they do again."""
        self.known = self._contexts.get

    def context(self, action: str) -> Any:
        """The context of an action; `NOTHING` where it maps to no phase."""
        found = self._contexts.get(action)
        if found is None:
            found = self._contexts[action] = self._make(action)
        return found

    def _make(self, action: str) -> Any:
        kind, _, rest = action.partition("]")
        name, _, hook = rest.rpartition(".")
        if hook == FETCH:
            return self._fetch
        if hook in CHECKPOINT_HOOKS:
            return NOTHING
        if kind == "[Strategy" and hook in STRATEGY_PHASES:
            return InPhase(self._clock, STRATEGY_PHASES[hook])
        if kind == "[LightningModule":
            return self._module_hook(name, hook)
        if kind == "[Callback":
            return self._callback_hook(name, hook)
        return NOTHING

    def _module_hook(self, name: str, hook: str) -> Any:
        if hook == "optimizer_step":
            return OptimizerStep(self._clock, self._steps)
        if hook in MODULE_PHASES:
            return InPhase(self._clock, MODULE_PHASES[hook])
        if hook == "on_validation_model_zero_grad":
            return ValidationBegins(self._clock, self._fetch)
        if hook.startswith("on_") and _overrides(self._trainer.lightning_module, hook, self._module):
            return InPhase(self._clock, self._clock.slot(Phase.CALLBACKS, f"{name}.{hook}"))
        return NOTHING

    def _callback_hook(self, state_key: str, hook: str) -> Any:
        namesakes = [one for one in self._trainer.callbacks if one.state_key == state_key]
        callback = next((one for one in namesakes if _overrides(one, hook, self._callback)), None)
        if callback is None or isinstance(callback, self._ours):
            return NOTHING
        phase = Phase.CHECKPOINT if isinstance(callback, self._checkpoint) else Phase.CALLBACKS
        slot = self._clock.slot(phase, type(callback).__name__)
        if hook in TRIAL_HOOKS:
            return FitApart(self._clock, slot, self.mute, self.hear)
        return InPhase(self._clock, slot)


def starts_workers(trainer: Any) -> bool:
    """Whether any of the training loaders has worker processes, which the first batch of an epoch waits for."""
    return any(getattr(loader, "num_workers", 0) for loader in training_loaders(trainer))


def training_loaders(trainer: Any) -> Iterable[Any]:
    """The training loaders, one by one, whatever collection they came in."""
    combined = getattr(trainer.fit_loop, "_combined_loader", None)
    return () if combined is None else combined.flattened


def _nothing(_: str) -> Nothing:
    return NOTHING


def _overrides(instance: Any, hook: str, base: type) -> bool:
    """Whether a hook does anything: by its class, or, as those of a LambdaCallback, by the instance alone."""
    method = getattr(type(instance), hook, None)
    return hook in vars(instance) or (method is not None and method is not getattr(base, hook, None))
