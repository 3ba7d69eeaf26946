"""A hand-written loop, marked with `trace_run`."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from planted_time import PlantedTime
from waiting import LIMIT_S, wait_for

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.batch_size import size_of
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_core.reporting.summary import decode_summary
from traceml_core.sdk import trace_run

DELAY_S = 0.01
# What all the looks at the clock add up to.
SLACK_S = 1e-5


class MemorySession:
    """An open run whose records stay in memory. `now` stands for the clock."""

    now = PlantedTime()
    enabled = True
    world_size = 1
    folder = None

    def __init__(self, settings, facts, identity=None, *, started_ns=None, store=None):
        self.facts = facts
        self.clock = PhaseClock(self.now)
        self.steps = StepRecorder(self.clock)
        self.described: dict[str, Any] = {}
        self.ended: Any = None

    def describe(self, **facts):
        self.described.update(facts)

    def close(self, status="completed", error=None):
        self.ended = (status, error)
        self.clock.unwind()
        self.steps.finish()

    @property
    def numbered(self):
        return [record for record in self.steps.queue if record.step is not None]

    def seconds(self, phase):
        return sum(record.spent_ns[phase] for record in self.steps.queue) / 1e9


@pytest.fixture
def sessions(monkeypatch) -> list[MemorySession]:
    opened: list[MemorySession] = []

    def open_session(*args, **kwargs):
        opened.append(MemorySession(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr("traceml_core.sdk.traced_run.open_session", open_session)
    return opened


class Loader:
    """Batches of two samples, each taking `delay_s`."""

    def __init__(self, count: int = 5, delay_s: float = 0.0, num_workers: int = 0):
        self.count = count
        self.delay_s = delay_s
        self.num_workers = num_workers
        self.batch_size = 2

    def __iter__(self):
        for _ in range(self.count):
            MemorySession.now.passes(self.delay_s)
            yield [Shaped(2, 8)]


class Shaped:
    """Something with a shape, as every array library has it."""

    def __init__(self, *shape: int):
        self.shape = shape


def test_in_a_joined_run_of_several_ranks_the_wait_for_others_is_not_measured(sessions, monkeypatch):
    monkeypatch.setattr(MemorySession, "world_size", 2)
    with trace_run() as run, run.step(), run.phase("forward"):
        pass
    assert {"grad_sync", "backward"} <= set(sessions[0].described["unmeasured"])


def test_each_planted_delay_lands_in_its_phase_and_a_step_is_a_batch(sessions):
    began_ns = MemorySession.now()
    with trace_run() as run:
        for _ in run.batches(Loader(delay_s=DELAY_S)):
            with run.step():
                for name in ("h2d", "forward", "backward", "optimizer"):
                    with run.phase(name):
                        MemorySession.now.passes(DELAY_S)
        with run.phase("checkpoint"):
            MemorySession.now.passes(DELAY_S)
    wall_s = (MemorySession.now() - began_ns) / 1e9
    (session,) = sessions
    for phase in (Phase.INPUT_WAIT, Phase.H2D, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER):
        assert session.seconds(phase) == pytest.approx(5 * DELAY_S, abs=SLACK_S), phase
    assert session.seconds(Phase.CHECKPOINT) == pytest.approx(DELAY_S, abs=SLACK_S)
    assert session.seconds(Phase.UNATTRIBUTED) < SLACK_S
    assert [(record.step, record.micro_batches, record.samples) for record in session.numbered] == [
        (number, 1, 2) for number in range(1, 6)
    ]
    assert sum(record.interval_ns for record in session.steps.queue) / 1e9 == pytest.approx(wall_s, abs=SLACK_S)


def test_what_is_not_marked_is_unmeasured_and_not_zero(sessions):
    with trace_run() as run:
        assert set(sessions[0].facts.unmeasured) == {"input_wait", "forward", "backward", "optimizer"}
        with run.step(), run.phase("forward"):
            pass
        assert set(sessions[0].described["unmeasured"]) == {"input_wait", "backward", "optimizer"}
        for _ in run.batches([1]):
            pass
    assert set(sessions[0].described["unmeasured"]) == {"backward", "optimizer"}


def test_the_first_wait_for_workers_is_loader_start(sessions):
    with trace_run() as run:
        for _ in run.batches(Loader(count=3, delay_s=DELAY_S, num_workers=2)):
            with run.step():
                pass
    (session,) = sessions
    assert session.seconds(Phase.LOADER_START) == pytest.approx(DELAY_S, abs=SLACK_S)
    assert session.seconds(Phase.INPUT_WAIT) == pytest.approx(2 * DELAY_S, abs=SLACK_S)
    assert session.described["loader"].num_workers == 2


def test_batches_inside_a_step_are_its_micro_batches(sessions):
    with trace_run() as run:
        for _ in range(3):
            with run.step():
                for _ in run.batches(Loader(count=4)):
                    pass
    assert [(record.micro_batches, record.samples) for record in sessions[0].numbered] == [(4, 8)] * 3


def test_steps_without_batches_begin_with_their_blocks(sessions):
    with trace_run() as run:
        for _ in range(4):
            with run.step():
                MemorySession.now.passes(0.002)
    assert len(sessions[0].numbered) == 4


def test_a_loop_that_goes_on_from_a_checkpoint_numbers_its_steps_on(sessions):
    with trace_run() as run:
        run.start_at(100)
        for _ in range(2):
            with run.step():
                pass
    assert [record.step for record in sessions[0].numbered] == [101, 102]


def test_a_validation_over_batches_is_validation_and_no_step(sessions):
    with trace_run() as run:
        for _ in range(2):
            for _ in run.batches(Loader(count=2)):
                with run.step():
                    pass
            with run.phase("validation"):
                for _ in run.batches(Loader(count=2, delay_s=DELAY_S)):
                    with run.phase("forward"):
                        MemorySession.now.passes(DELAY_S)
    (session,) = sessions
    assert len(session.numbered) == 4
    assert session.seconds(Phase.VALIDATION) == pytest.approx(8 * DELAY_S, abs=SLACK_S)
    assert session.seconds(Phase.INPUT_WAIT) + session.seconds(Phase.FORWARD) < SLACK_S


def test_the_time_between_epochs_belongs_to_no_step(sessions):
    with trace_run() as run:
        for _ in range(2):
            for _ in run.batches(Loader(count=2)):
                with run.step():
                    pass
            MemorySession.now.passes(DELAY_S)
    assert max(record.interval_ns for record in sessions[0].numbered) < DELAY_S / 2 * 1e9


def test_an_unknown_phase_is_refused_with_the_names_of_those_there_are(sessions):
    with trace_run() as run, pytest.raises(ValueError, match=r"'foward' is not known.*forward.*checkpoint"):
        run.phase("foward")


def test_an_unknown_fact_is_refused_with_the_names_of_those_there_are(sessions):
    with trace_run() as run:
        run.describe(precision="bf16")
        with pytest.raises(ValueError, match=r"'optimiser' is not known.*precision"):
            run.describe(optimiser="adam")
    assert sessions[0].described["precision"] == "bf16"


def test_a_bad_setting_raises_at_once():
    with pytest.raises(ValueError, match="report='loud'"):
        trace_run(report="loud")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("no"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(3), "interrupted"),
        (SystemExit(0), "completed"),
    ],
)
def test_an_exception_ends_the_run_and_goes_on_unchanged(sessions, error, status):
    with pytest.raises(type(error)) as caught, trace_run() as run, run.step():
        raise error
    assert caught.value is error
    assert sessions[0].ended == (status, None if status == "completed" else error)
    assert sessions[0].numbered == []


def test_a_run_is_opened_once(sessions):
    run = trace_run()
    with pytest.raises(RuntimeError, match="not open"):
        run.step()
    with run:
        pass
    with pytest.raises(RuntimeError, match="opened before"), run:
        pass


def test_marks_of_another_thread_are_not_heard(sessions):
    with trace_run() as run:

        def mark():
            with run.step(), run.phase("forward"):
                MemorySession.now.passes(DELAY_S)

        thread = threading.Thread(target=mark)
        thread.start()
        thread.join()
    assert sessions[0].numbered == []
    assert sessions[0].seconds(Phase.FORWARD) == 0


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (Shaped(4, 8), (4, None)),
        ([Shaped(3), Shaped(9)], (3, None)),
        (([], {"pixels": Shaped(6, 1)}), (6, None)),
        ({"input_ids": Shaped(2, 10), "labels": Shaped(2)}, (2, 20)),
        ({"input_ids": [1, 2, 3]}, (None, None)),
        ([], (None, None)),
        ([1, 2], (None, None)),
        ("text", (None, None)),
        (Shaped(), (None, None)),
    ],
)
def test_a_batch_is_counted_by_its_shape_alone(batch, size):
    assert size_of(batch) == size


def test_a_batch_that_cannot_be_looked_at_counts_as_unknown():
    class Hostile:
        @property
        def shape(self):
            raise RuntimeError("not on this device")

    assert size_of(Hostile()) == (None, None)


@pytest.mark.slow
def test_a_whole_run_is_reported_and_needs_no_torch(tmp_path):
    code = """
import sys, time
sys.modules["torch"] = None
sys.modules["numpy"] = None
import patience
from traceml_core.sdk import trace_run
patience.wait_patiently()
with trace_run(run_dir="run") as run:
    for batch in run.batches([[1], [2], [3]] * 20):
        with run.step(), run.phase("forward"):
            time.sleep(0.005)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    summary = decode_summary((tmp_path / "run" / "final_summary.json").read_bytes())
    assert (summary.run.framework, summary.run.status, summary.run.steps) == ("manual", "completed", 60)
    assert summary.time_budget.coverage_share >= 0.99


@pytest.mark.slow
def test_the_example_runs_and_is_reported(tmp_path):
    pytest.importorskip("sklearn")
    repository = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(repository / "examples" / "manual_loop.py"), "--epochs", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (summary,) = wait_for(lambda: list((tmp_path / "traceml_runs").glob("*/final_summary.json")))
    assert decode_summary(summary.read_bytes()).run.steps == 57
