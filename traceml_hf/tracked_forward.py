"""The call of a prepared model: a step tracker hears of it."""

from __future__ import annotations

from typing import Any

from traceml_hf.accelerate_steps import StepTracker
from traceml_hf.watched_calls import WatchedCall


class TrackedForward(WatchedCall):
    """Tells a tracker where a model's forward begins and ends."""

    def __init__(self, tracker: StepTracker, module: Any, name: str) -> None:
        """Follow the calls of `module`."""
        super().__init__(module, name)
        self._begins, self._ends = tracker.forward_begins, tracker.forward_ends

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Call the module."""
        self._begins(self._module)
        try:
            return self.call(*inputs, **options)
        finally:
            self._ends(self._module)
