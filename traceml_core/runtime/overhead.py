"""What measuring costs the training thread, from what a boundary costs here and how many there were."""

from __future__ import annotations

from time import perf_counter_ns

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder

TRIALS = 200
STEP_CLOSE_BOUNDARIES = 6


def overhead_ns_per_step(clock: PhaseClock, steps: StepRecorder) -> float:
    """Nanoseconds of the training thread a step: boundaries × the cost of one, closing the step, and giving way."""
    done = steps.steps_done
    if done == 0:
        return 0.0
    return (clock.boundaries / done + STEP_CLOSE_BOUNDARIES) * _boundary_ns() + steps.given_way_ns / done


def _boundary_ns() -> float:
    """What one enter or leave costs on this machine: the fastest of five trials."""
    clock = PhaseClock()
    best = None
    for _ in range(5):
        began = perf_counter_ns()
        for _ in range(TRIALS // 5):
            clock.enter(Phase.FORWARD)
            clock.leave(Phase.FORWARD)
        clock.take()
        spent = perf_counter_ns() - began
        best = spent if best is None else min(best, spent)
    return (best or 0) / (2 * (TRIALS // 5))
