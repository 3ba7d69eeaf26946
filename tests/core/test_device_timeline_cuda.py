"""The device timeline on a real GPU, where there is one."""

from __future__ import annotations

import time

import pytest

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.device_timeline import cuda_timeline
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def make():
    clock = PhaseClock()
    steps = StepRecorder(clock, device=cuda_timeline())
    clock.leave(Phase.STARTUP)
    return clock, steps


def matrix_steps(clock, steps, count: int) -> None:
    matrix = torch.randn(2048, 2048, device="cuda")
    for _ in range(count):
        steps.fetch()
        clock.enter(Phase.FORWARD)
        for _ in range(30):
            matrix = torch.nn.functional.normalize(matrix @ matrix)
        clock.leave(Phase.FORWARD)
        steps.optimizer_step()


def test_queued_work_is_device_time_of_the_phase_that_queued_it():
    clock, steps = make()
    matrix_steps(clock, steps, 20)
    torch.cuda.synchronize()
    steps.finish()
    timed = [record for record in steps.queue if record.device_ns is not None]
    assert len(timed) >= 15
    settled = timed[5:]
    assert sum(r.device_ns[Phase.FORWARD] for r in settled) > 0.8 * sum(sum(r.device_ns) for r in settled)


def test_device_and_host_agree_on_the_whole():
    clock, steps = make()
    matrix_steps(clock, steps, 5)
    torch.cuda.synchronize()
    steps.fetch()
    steps.queue.clear()
    began_ns = time.perf_counter_ns()
    matrix_steps(clock, steps, 50)
    torch.cuda.synchronize()
    lasted_ns = time.perf_counter_ns() - began_ns
    steps.finish()
    device_ns = sum(sum(record.device_ns) for record in steps.queue if record.device_ns is not None)
    assert device_ns == pytest.approx(lasted_ns, rel=0.05)


def test_a_graph_can_be_captured_while_the_clock_runs():
    clock, steps = make()
    static = torch.zeros(8, device="cuda")
    matrix_steps(clock, steps, 2)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        clock.enter(Phase.FORWARD)
        static += 1
        clock.leave(Phase.FORWARD)
        steps.fetch()
    graph.replay()
    matrix_steps(clock, steps, 2)
    torch.cuda.synchronize()
    steps.finish()
    assert float(static[0]) == 1.0
    assert steps.steps_done == 4
