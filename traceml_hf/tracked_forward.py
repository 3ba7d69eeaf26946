"""The call of a prepared model: a step tracker hears of it."""

from __future__ import annotations

from threading import get_ident
from typing import Any

from traceml_core.core.phases import FORWARD
from traceml_hf.accelerate_steps import StepTracker
from traceml_hf.watched_calls import WatchedCall


class TrackedForward(WatchedCall):
    """Tells a tracker where a model's forward begins and ends; in plain sailing it tells the clock, in fewer calls."""

    __slots__ = ("_note", "_now", "_tracker")

    def __init__(self, tracker: StepTracker, module: Any, name: str) -> None:
        """Follow the calls of `module`."""
        super().__init__(module, name)
        self._tracker = tracker
        self._note, self._now = tracker.clock.note, tracker.clock.now

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Call the module."""
        tracker, module = self._tracker, self._module
        is_plain = tracker.plain is not None and module.training and get_ident() == tracker.thread
        if is_plain:
            tracker.forward_in_eval_mode = False
            self._note((FORWARD, self._now()))
        else:
            tracker.forward_begins(module)
        try:
            return self.call(*inputs, **options)
        finally:
            if is_plain:
                self._note((~FORWARD, self._now()))
            else:
                tracker.forward_ends()
