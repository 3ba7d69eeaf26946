"""One recorded run of one accelerator: what is put on its instances while the run is open, and taken off at its end."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

from traceml_core.core.phases import Phase
from traceml_core.core.settings import Settings
from traceml_core.instrumentation.gradient_arrival import split_backward
from traceml_core.instrumentation.loader_facts import loader_facts
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.session import open_session
from traceml_core.sdk.run_ending import status_of
from traceml_hf.accelerate_facts import copies_out_of_sight, facts_of, identity_of, store_of
from traceml_hf.accelerate_loaders import install, remove
from traceml_hf.accelerate_steps import StepTracker
from traceml_hf.accelerate_trackers import log_verdict
from traceml_hf.loader_role import LoaderRole
from traceml_hf.stock_copies import leave_out_no_longer, leave_out_of_copies
from traceml_hf.tracked_forward import TrackedForward
from traceml_hf.watched_calls import watch_calls
from traceml_hf.weak_list import WeakList

MARK = "_traceml_attachment"
PHASE_OF_METHOD = {
    "clip_grad_norm_": Phase.OPTIMIZER,
    "clip_grad_value_": Phase.OPTIMIZER,
    "unscale_gradients": Phase.OPTIMIZER,
    "save_state": Phase.CHECKPOINT,
    "save_model": Phase.CHECKPOINT,
    "save": Phase.CHECKPOINT,
    "log": Phase.LOGGING,
}
METHODS_THAT_PREPARE = ("prepare", "prepare_model", "prepare_data_loader", "prepare_optimizer", "skip_first_batches")

_logger = get_error_logger("AccelerateCallback")


class Attachment:
    """Watches one accelerator from construction until `close`."""

    _open: ClassVar[list[Attachment]] = []

    @classmethod
    def close_left_open(cls) -> None:
        """End the runs that have trained and that nobody ended: another one begins.

        A run in its `with` block goes on, and so does one without a step: accelerators are being set up one by one.
        """
        for attachment in list(cls._open):
            if attachment._session.steps.steps_done and not attachment.in_block:
                attachment.close()

    def __init__(self, accelerator: Any, settings: Settings, started_ns: int) -> None:
        """Open a run for `accelerator`, begun at `started_ns` (perf_counter), and watch what it prepares."""
        self.accelerator = accelerator
        self._settings = settings
        self._facts = facts_of(accelerator)
        self._unmeasured = dict.fromkeys(self._facts.unmeasured)
        self._splits = self._facts.unmeasured == (Phase.GRAD_SYNC.key,)
        self._splitting: list[Callable[[], None]] = []
        self._undo: list[Callable[[], object]] = []
        self._loaders: list[tuple[weakref.ref[Any], LoaderRole]] = []
        self._models = WeakList()
        self._optimizers = WeakList()
        self._preparing = 0
        self._closed = False
        self.in_block = False
        self._session = open_session(
            settings, self._facts, identity_of(accelerator), started_ns=started_ns, store=store_of(accelerator)
        )
        self._session.status_at_exit = "completed"  # the end of the process is one of the ways to end such a run
        self._tracker = self._make_tracker()
        self._session.on_end = self._take_off
        if not self._session.enabled:
            self._take_off()
            return
        self._open.append(self)
        with fail_open(_logger, "attaching to the accelerator"):
            self._watch_everything()

    @property
    def is_open(self) -> bool:
        """Whether the run goes on."""
        return not self._closed

    def close(self, error: BaseException | None = None) -> None:
        """End the run: take everything off, write the verdict to the trackers, print the card. Safe to repeat."""
        if self._closed:
            return
        accelerator, status = self.accelerator, status_of(error)
        error = None if status == "completed" else error
        verdict = self._session.finish(status, error)
        self._take_off()
        if verdict is not None and self._settings.trackers:
            with fail_open(_logger, "writing to the trackers"):
                log_verdict(accelerator, verdict, self._session.steps.step, with_text=True)
        self._session.close(status, error)

    def _make_tracker(self) -> StepTracker:
        import torch

        return StepTracker(
            self._session.clock,
            self._session.steps,
            models=self._models,
            optimizers=self._optimizers,
            grad_enabled=torch.is_grad_enabled,
            on_training_loader=self._describe_loader,
            on_unmeasured=self._describe_unmeasured,
            on_step=self._log_live if self._settings.log_every_n_steps else None,
        )

    def _watch_everything(self) -> None:
        accelerator = self.accelerator
        vars(accelerator)[MARK] = self
        leave_out_of_copies(accelerator, MARK, self)
        for name in METHODS_THAT_PREPARE:
            self._replace(accelerator, name, self._preparing_call)
        for name, phase in PHASE_OF_METHOD.items():
            self._replace(accelerator, name, functools.partial(self._phase_call, phase))
        engine_steps = accelerator.distributed_type.name in ("DEEPSPEED", "MEGATRON_LM")
        self._replace(
            accelerator, "backward", self._engine_backward_call if engine_steps else self._tracker.backward_call
        )
        self._replace(accelerator, "end_training", self._end_training_call)
        if accelerator.scaler is not None:
            self._replace(accelerator.scaler, "step", self._scaler_step_call)
        for kind in ("_models", "_optimizers", "_dataloaders"):
            for prepared in getattr(accelerator, kind):
                self._watch_prepared(prepared)

    def _take_off(self) -> None:
        """Leave every instance as it was found, and hold none; whoever ends the run, a notebook's failed cell too."""
        if self._closed:
            return
        self._closed = True
        if self in self._open:
            self._open.remove(self)
        self._tracker.close()
        if vars(self.accelerator).get(MARK) is self:
            del vars(self.accelerator)[MARK]
        leave_out_no_longer(self.accelerator, MARK)
        while self._undo:
            with fail_open(_logger, "taking a hook off"):
                self._undo.pop()()
        self.accelerator = None

    def _replace(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Put `make(method)` over a method, on the instance alone, until the run closes."""
        original = getattr(owner, name, None)
        if original is None:
            return
        before = vars(owner).get(name)
        replacement = functools.wraps(original)(make(original))
        vars(owner)[name] = replacement
        leave_out_of_copies(owner, name, replacement, before)

        def put_back() -> None:
            leave_out_no_longer(owner, name)
            if vars(owner).get(name) is not replacement:
                return
            if before is None:
                del vars(owner)[name]
            else:
                vars(owner)[name] = before

        self._undo.append(put_back)

    def _phase_call(self, phase: Phase, original: Callable[..., Any]) -> Callable[..., Any]:
        clock, tracker = self._session.clock, self._tracker

        def call(*args: Any, **kwargs: Any) -> Any:
            if not tracker.listens():
                return original(*args, **kwargs)
            clock.enter(phase)
            try:
                return original(*args, **kwargs)
            finally:
                clock.leave(phase)

        return call

    def _engine_backward_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """DeepSpeed and Megatron-LM step inside `backward`, at the last micro-batch of a window."""
        accelerator, backward = self.accelerator, self._tracker.backward_call(original)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = backward(*args, **kwargs)
            if accelerator.sync_gradients:
                self._tracker.optimizer_ends(accelerator)
            return result

        return call

    def _scaler_step_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The scaler may skip the update; the step is one all the same."""
        tracker = self._tracker

        def call(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            tracker.optimizer_begins(optimizer)
            try:
                return original(optimizer, *args, **kwargs)
            finally:
                tracker.optimizer_ends(optimizer)

        return call

    def _end_training_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.close(sys.exc_info()[1])
            return original(*args, **kwargs)

        return call

    def _preparing_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._preparing += 1
            try:
                result = original(*args, **kwargs)
            finally:
                self._preparing -= 1
            if not self._preparing and not self._closed:
                with fail_open(_logger, "watching what was prepared"):
                    for prepared in result if isinstance(result, tuple) else (result,):
                        self._watch_prepared(prepared)
            return result

        return call

    def _watch_prepared(self, prepared: Any) -> None:
        from accelerate.optimizer import AcceleratedOptimizer
        from torch.nn import Module

        if isinstance(prepared, Module):
            self._watch_model(prepared)
        elif isinstance(prepared, AcceleratedOptimizer):
            self._watch_optimizer(prepared)
        elif hasattr(type(prepared), "__iter__"):
            self._watch_loader(prepared)

    def _watch_model(self, model: Any) -> None:
        if model in self._models:
            return
        self._models.append(model)
        self._undo.append(watch_calls(model, functools.partial(TrackedForward, self._tracker)))
        if self._splits:
            self._split_backward(model)

    def _split_backward(self, model: Any) -> None:
        """Tell own backward from the wait for other ranks, where DDP is all that synchronises gradients."""
        if not any(type(part).__name__ == "DistributedDataParallel" for part in model.modules()):
            return
        end = split_backward(model, self._session.clock, self._session.steps.gradients_arrived)
        if end is None:
            self._splits = False
            while self._splitting:
                self._splitting.pop()()
            self._describe_unmeasured(Phase.GRAD_SYNC.key)
            return
        self._splitting.append(end)
        self._undo.append(end)
        if self._unmeasured.pop(Phase.GRAD_SYNC.key, self) is None:
            self._session.describe(unmeasured=tuple(self._unmeasured))

    def _watch_optimizer(self, accelerated: Any) -> None:
        optimizer = accelerated.optimizer
        if optimizer in self._optimizers:
            return
        self._optimizers.append(optimizer)
        if hasattr(optimizer, "register_step_pre_hook"):
            before = optimizer.register_step_pre_hook(self._tracker.optimizer_begins)
            # What the user's own pre-hooks do is the optimizer's time; torch has no `prepend` here.
            with fail_open(_logger, "going before other pre-hooks"):
                optimizer._optimizer_step_pre_hooks.move_to_end(before.id, last=False)
            after = optimizer.register_step_post_hook(self._tracker.optimizer_ends)
            self._undo += [before.remove, after.remove]

    def _watch_loader(self, loader: Any) -> None:
        role = install(loader, self._tracker)
        if role is None:
            return
        reference = weakref.ref(loader)
        self._loaders.append((reference, role))
        self._undo.append(functools.partial(_remove_where_it_is, reference))
        if copies_out_of_sight(self.accelerator, loader):
            self._describe_unmeasured(Phase.H2D.key)

    def _describe_loader(self, role: LoaderRole) -> None:
        for reference, known in self._loaders:
            if known is role and (loader := reference()) is not None:
                self._session.describe(**loader_facts(loader))

    def _describe_unmeasured(self, key: str) -> None:
        if key not in self._unmeasured:
            self._unmeasured[key] = None
            self._session.describe(unmeasured=tuple(self._unmeasured))

    def _log_live(self) -> None:
        steps = self._session.steps
        if steps.steps_done % (self._settings.log_every_n_steps or 1):
            return
        verdict = self._session.live_verdict()
        if verdict is not None:
            self._session.clock.enter(Phase.LOGGING)
            try:
                log_verdict(self.accelerator, verdict, steps.step, with_text=False)
            finally:
                self._session.clock.leave(Phase.LOGGING)


def _remove_where_it_is(reference: weakref.ref[Any]) -> None:
    loader = reference()
    if loader is not None:
        remove(loader)
