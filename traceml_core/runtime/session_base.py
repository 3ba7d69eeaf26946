"""What a session is to an adapter, and the one that records nothing: switched off, or where nothing can be started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_core.telemetry.messages import RunError, RunStatus, Verdict


class Session:
    """An open run of this process. Every method is safe to call more than once, and none raises into training.

    `clock` and `steps` are the measuring side, for the training thread alone. This base class is the disabled session:
    its clock and recorder work as always, and what they measure goes nowhere.
    """

    enabled = False
    world_size = 1
    folder: Path | None = None

    def __init__(self, started_ns: int | None = None) -> None:
        """Measure from `started_ns` (perf_counter) on."""
        self.started_ns = perf_counter_ns() if started_ns is None else started_ns
        self.clock = PhaseClock(started_ns=self.started_ns)
        self.steps = StepRecorder(self.clock, queue_limit=0)
        self.status_at_exit: RunStatus = "interrupted"
        self.on_end: Callable[[], None] | None = None  # what an adapter has to undo, whoever ends the run

    def describe(self, **facts: Any) -> None:
        """Fill or replace fields of `RunFacts`, at any time; rank 0's facts are the run's."""

    def live_verdict(self) -> Verdict | None:
        """The newest live verdict (global rank 0; else None). Costs an attribute read."""
        return None

    def finish(self, status: RunStatus = "completed", error: BaseException | RunError | None = None) -> Verdict | None:
        """End the measuring: flush rows, ask for the report; the final verdict on global rank 0, else None.

        Returns within 5 s whatever the aggregator does. The first call counts.
        """
        return None

    def close(self, status: RunStatus = "completed", error: BaseException | RunError | None = None) -> None:
        """`finish`, print the card to stderr (global rank 0), stop everything that this session started."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        """A copy does not share a run: it is a disabled session."""
        return Session()

    def __reduce__(self) -> tuple[type[Session], tuple[()]]:
        """A pickled session comes back disabled: a run belongs to the process that opened it."""
        return (Session, ())
