"""What stands in for a trainer's own things while a run is open: put on its instances, and taken off at the end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from traceml_core.core.phases import BACKWARD, OPTIMIZER, Phase
from traceml_core.instrumentation.gradient_arrival import split_backward
from traceml_core.instrumentation.loader_facts import loader_facts
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.runtime.session import Session
from traceml_hf.accelerate_loaders import install, remove
from traceml_hf.stock_copies import leave_out_no_longer, leave_out_of_copies
from traceml_hf.timed_events import TimedEvents
from traceml_hf.trainer_loop import TimedForward, TrainerLoop
from traceml_hf.watched_calls import watch_calls

logger = get_error_logger("Trainer")


class TrainerWatch:
    """Watches one trainer until `take_off`, and then holds nothing of it."""

    def __init__(self, session: Session, loop: TrainerLoop) -> None:
        """Tell `session` and `loop` of what will be watched."""
        self._session = session
        self._clock = session.clock
        self._loop = loop
        self._undo: list[Callable[[], object]] = []

    def put_on(
        self,
        trainer: Any,
        unmeasured: tuple[str, ...],
        events: Mapping[str, Callable[..., None]],
        when_over: Callable[[], None],
    ) -> None:
        """Watch `trainer`; `unmeasured` is what its strategy is known not to show.

        `events` are told by name; `when_over` is called once every callback has heard that the training is over.
        """
        handler = trainer.callback_handler
        self._undo.append(TimedEvents(handler, self._clock, events, when_over).put_back)
        loader = handler.train_dataloader
        if install(loader, self._loop) is not None:
            self._loop.has_proxy = True
            self._undo.append(lambda: remove(loader))
        self._session.describe(loader=loader_facts(loader)["loader"])
        if unmeasured == (Phase.GRAD_SYNC.key,):
            self._split_backward(trainer.model)
        self._replace(trainer.accelerator, "backward", self._backward)
        self._replace(trainer.accelerator, "clip_grad_norm_", functools.partial(_in_phase, self._clock, OPTIMIZER))
        self._undo.append(watch_calls(trainer.model_wrapped, functools.partial(TimedForward, self._loop)))

    def take_off(self) -> None:
        """Leave every instance as it was found. Safe to repeat."""
        while self._undo:
            with fail_open(logger, "putting the trainer's own things back"):
                self._undo.pop()()

    def _split_backward(self, model: Any) -> None:
        """Where the wait for other ranks lies inside backward, and only that is unknown."""
        end = split_backward(model, self._clock, self._session.steps.gradients_arrived)
        if end is not None:
            self._undo.append(end)
            self._session.describe(unmeasured=())

    def _replace(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Put `make(method)` on an instance; what somebody else put there is kept inside, and comes back."""
        had, before = name in vars(owner), getattr(owner, name)
        setattr(owner, name, make(before))
        ours = vars(owner)[name]
        leave_out_of_copies(owner, name, ours, before if had else None)

        def undo() -> None:
            leave_out_no_longer(owner, name)
            if vars(owner).get(name) is ours:
                if had:
                    setattr(owner, name, before)
                else:
                    delattr(owner, name)

        self._undo.append(undo)

    def _backward(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        note, now, loop = self._clock.note, self._clock.now, self._loop

        def timed(*arguments: Any, **options: Any) -> Any:
            note((BACKWARD, now()))
            try:
                return backward(*arguments, **options)
            finally:
                note((~BACKWARD, now()))
                if not loop.has_counted:
                    loop.micro_batch()

        return timed


def _in_phase(clock: PhaseClock, phase: int, method: Callable[..., Any]) -> Callable[..., Any]:
    note, now = clock.note, clock.now

    def timed(*arguments: Any, **options: Any) -> Any:
        note((phase, now()))
        try:
            return method(*arguments, **options)
        finally:
            note((~phase, now()))

    return timed
