"""One run of one training process, as an adapter sees it: open, describe, finish, close.

This is the only thing of the runtime that adapters and the sdk touch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_core.telemetry.messages import RunError, RunStatus, Verdict


class Session(Protocol):
    """An open run of this process. Every method is safe to call more than once and never raises into training.

    `clock` and `steps` are the measuring side; the training thread alone calls them. On a disabled session they work
    just as well, and what they measure goes nowhere.
    """

    enabled: bool
    folder: Path | None
    clock: PhaseClock
    steps: StepRecorder

    def describe(self, **facts: Any) -> None:
        """Fill or replace fields of `RunFacts`, at any time; rank 0's facts are the run's."""
        ...

    def live_verdict(self) -> Verdict | None:
        """The newest live verdict (global rank 0; else None). Costs an attribute read."""
        ...

    def finish(self, status: RunStatus, error: RunError | None = None) -> Verdict | None:
        """End the measuring: flush rows, ask for the report; the final verdict on global rank 0, else None.

        Returns within 5 s whatever the aggregator does. The first call counts.
        """
        ...

    def close(self, status: RunStatus = "completed", error: RunError | None = None) -> None:
        """`finish`, print the card to stderr (global rank 0), stop everything that this session started."""
        ...
