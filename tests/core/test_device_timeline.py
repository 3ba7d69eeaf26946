"""The device timeline, on made-up events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceml_core.core.phases import STEP_PHASES, Phase
from traceml_core.instrumentation.device_timeline import DeviceTimeline, cuda_timeline
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_memory import cuda_step_memory
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_core.loggers.error_log import FAILURES, close_error_log

NANOSECONDS_PER_MS = 1_000_000


class FakeEvent:
    """A moment on the fake device's stream, passed once the device has worked that far."""

    def __init__(self, device: FakeDevice):
        self.device = device
        self.at_ms: float | None = None

    def query(self) -> bool:
        if self.device.fails_on_query:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        self.device.queries += 1
        return self in self.device.passed

    def elapsed_time(self, later: FakeEvent) -> float:
        assert self.query() and later.query(), "asked for the time of an event that the device has not passed"
        return later.at_ms - self.at_ms


class FakeDevice:
    """A stream in device milliseconds: work is queued by `works`, and done at `catches_up`."""

    def __init__(self):
        self.at_ms = 0.0
        self.made: list[FakeEvent] = []
        self.passed: set[FakeEvent] = set()
        self.queries = 0
        self.fails_on_query = False
        self.fails_on_record = False
        self.is_capturing = False

    def new_event(self) -> FakeEvent:
        self.made.append(FakeEvent(self))
        return self.made[-1]

    def record(self, event: FakeEvent) -> None:
        assert not self.is_capturing, "an event was recorded into a graph"
        if self.fails_on_record:
            raise RuntimeError("CUDA error: out of memory")
        event.at_ms = self.at_ms
        self.passed.discard(event)

    def works(self, milliseconds: float) -> None:
        self.at_ms += milliseconds

    def catches_up(self) -> None:
        self.passed.update(self.made)


class Training:
    """A clock and a recorder with a fake device, past their start-up."""

    def __init__(self, **options: Any):
        self.device = FakeDevice()
        self.timeline = DeviceTimeline(
            self.device.new_event, self.device.record, leave_alone=lambda: self.device.is_capturing, **options
        )
        self.clock = PhaseClock()
        self.steps = StepRecorder(self.clock, device=self.timeline)
        self.clock.leave(Phase.STARTUP)

    def spend(self, slot: int, milliseconds: float) -> None:
        self.clock.enter(slot)
        self.device.works(milliseconds)
        self.clock.leave(slot)

    def step(self, **phases_ms: float) -> None:
        self.steps.fetch()
        for key, milliseconds in phases_ms.items():
            self.spend(Phase[key.upper()], milliseconds)
        self.steps.optimizer_step()

    @property
    def records(self) -> list:
        return [record for record in self.steps.queue if record.step is not None]

    def device_ms(self, record) -> dict[str, float]:
        assert record.device_ns is not None, f"step {record.step} has host time only"
        return {Phase(slot).key: part / NANOSECONDS_PER_MS for slot, part in enumerate(record.device_ns) if part}


@pytest.fixture(autouse=True)
def fresh_failures():
    close_error_log()
    yield
    close_error_log()


def test_the_device_time_of_a_step_is_parted_by_the_phase_that_queued_the_work():
    training = Training()
    training.step(input_wait=1, forward=5, backward=10, optimizer=2)
    training.device.works(3)
    training.steps.fetch()
    training.device.catches_up()
    training.steps.finish()
    assert training.device_ms(training.records[0]) == {
        "input_wait": 1,
        "forward": 5,
        "backward": 10,
        "optimizer": 2,
        "unattributed": 3,
    }


def test_a_record_is_held_until_the_device_has_passed_its_last_event():
    training = Training()
    training.step(forward=5)
    training.step(forward=6)
    assert [record.step for record in training.steps.queue] == [None]
    training.device.catches_up()
    training.step(forward=7)
    assert [record.step for record in training.steps.queue] == [None, 1]


def test_steps_lie_end_to_end_on_the_device():
    training = Training()
    for _ in range(4):
        training.step(forward=5)
        training.device.works(1)
        training.device.catches_up()
    training.steps.finish()
    assert [training.device_ms(record) for record in training.records[:3]] == [{"forward": 5, "unattributed": 1}] * 3


def test_records_come_in_order_although_later_events_completed_first():
    training = Training()
    for _ in range(3):
        training.step(forward=5)
    early = training.device.made[1]
    training.device.catches_up()
    training.device.passed.discard(early)
    training.step(forward=5)
    assert [record.step for record in training.steps.queue] == [None]
    training.device.catches_up()
    training.step(forward=5)
    assert [record.step for record in training.steps.queue] == [None, 1, 2, 3]


def test_phases_around_steps_get_no_device_time_and_leave_none_of_theirs_to_a_step():
    training = Training()
    callback = training.clock.slot(Phase.CALLBACKS, "EarlyStopping")
    training.step(forward=5)
    training.clock.enter(Phase.VALIDATION)
    training.spend(Phase.FORWARD, 100)
    training.spend(Phase.CHECKPOINT, 30)
    training.clock.leave(Phase.VALIDATION)
    training.spend(callback, 7)
    training.device.works(2)
    training.device.catches_up()
    training.steps.fetch()
    training.device.catches_up()
    training.steps.finish()
    assert training.device_ms(training.records[0]) == {"forward": 5, "unattributed": 2}


def test_neighbouring_phases_around_steps_share_their_events():
    training = Training()
    training.steps.fetch()
    made = len(training.device.made)
    training.clock.enter(Phase.VALIDATION)
    for _ in range(50):
        training.spend(Phase.LOGGING, 1)
    assert len(training.device.made) == made + 1


def test_steps_that_the_device_never_completes_are_left_with_host_time():
    training = Training(pending_limit=4)
    for _ in range(10):
        training.step(forward=5)
    assert [(record.step, record.device_ns) for record in training.records] == [(step, None) for step in range(1, 6)]


def test_at_the_end_nothing_is_waited_for_and_nothing_is_lost():
    training = Training()
    training.step(forward=5)
    training.step(forward=6)
    training.device.catches_up()
    training.steps.finish()
    assert [(record.step, record.device_ns is None) for record in training.records] == [(1, False), (2, True)]


def test_events_are_pooled():
    training = Training()
    for _ in range(50):
        training.step(input_wait=1, forward=5, backward=10)
        training.device.catches_up()
    assert len(training.device.made) <= 2 * 8


def test_given_up_events_come_back_too():
    training = Training(pending_limit=2)
    for _ in range(50):
        training.step(input_wait=1, forward=5, backward=10)
    assert len(training.device.made) <= 5 * 8


def test_a_failing_query_leaves_the_step_with_host_time_and_is_counted():
    training = Training()
    training.step(forward=5)
    training.device.fails_on_query = True
    training.step(forward=5)
    training.device.fails_on_query = False
    training.device.catches_up()
    training.steps.finish()
    assert training.records[0].device_ns is None
    assert FAILURES["DeviceTimeline"] == 1


def test_a_failing_record_costs_the_steps_it_touches_and_no_others():
    training = Training()
    training.step(forward=5)
    training.device.catches_up()
    training.steps.fetch()
    training.device.fails_on_record = True
    training.spend(Phase.FORWARD, 5)
    training.device.fails_on_record = False
    training.steps.optimizer_step()
    training.step(forward=5)
    training.device.catches_up()
    training.step(forward=5)
    training.device.catches_up()
    training.steps.finish()
    assert [record.device_ns is None for record in training.records] == [False, True, False, True]
    assert FAILURES["DeviceTimeline"] == 1


def test_nothing_is_recorded_or_asked_while_a_graph_is_captured():
    training = Training()
    training.step(forward=5)
    training.device.catches_up()
    training.device.is_capturing = True
    asked = training.device.queries
    training.step(forward=5)
    training.step(forward=5)
    assert training.device.queries == asked
    training.device.is_capturing = False
    for _ in range(3):
        training.step(forward=5)
        training.device.catches_up()
    training.steps.finish()
    assert [record.device_ns is None for record in training.records] == [True, True, True, False, False, True]


def test_time_that_is_told_afterwards_is_given_to_its_phase_on_the_device_too():
    training = Training()
    training.steps.fetch()
    training.spend(Phase.FORWARD, 5)
    training.device.works(8)
    training.clock.book(Phase.OPTIMIZER)
    training.device.works(1)
    training.steps.optimizer_step()
    training.steps.fetch()
    training.device.catches_up()
    training.steps.finish()
    assert training.device_ms(training.records[0]) == {"forward": 5, "optimizer": 8, "unattributed": 1}


def backward(training: Training, *, is_capturing: bool = False) -> None:
    arrivals = training.clock.arrivals()
    training.clock.enter(Phase.BACKWARD)
    for milliseconds in (10, 20):
        training.device.works(milliseconds)
        next(arrivals)
        training.device.is_capturing = is_capturing
        training.steps.gradients_arrived()
        training.device.is_capturing = False
    training.device.works(12)
    training.clock.leave(Phase.BACKWARD)


def test_backward_is_split_where_the_last_gradient_arrived_on_the_device():
    training = Training()
    training.steps.fetch()
    backward(training)
    training.steps.gradients_arrived()  # of a backward that the clock knows nothing of
    training.spend(Phase.OPTIMIZER, 3)
    training.steps.optimizer_step()
    training.steps.fetch()
    training.device.catches_up()
    training.steps.finish()
    assert training.device_ms(training.records[0]) == {"backward": 30, "grad_sync": 12, "optimizer": 3}


def test_gradients_whose_arrival_the_device_did_not_see_leave_its_wait_unmeasured():
    training = Training()
    training.steps.fetch()
    backward(training, is_capturing=True)
    backward(training)
    training.steps.optimizer_step()
    training.step(forward=1)
    training.steps.fetch()
    training.device.catches_up()
    training.steps.finish()
    first, second = training.records
    assert first.device_ns[Phase.GRAD_SYNC] is None
    assert first.device_ns[Phase.BACKWARD] == 2 * 42 * NANOSECONDS_PER_MS
    assert second.device_ns[Phase.GRAD_SYNC] == 0


def test_events_of_several_streams_never_give_a_phase_less_than_nothing():
    training = Training()
    training.steps.fetch()
    training.spend(Phase.FORWARD, 10)
    training.spend(Phase.H2D, -4)  # recorded on a stream that is ahead
    training.spend(Phase.BACKWARD, 6)
    training.steps.optimizer_step()
    training.steps.fetch()
    training.device.catches_up()
    training.steps.finish()
    assert training.device_ms(training.records[0]) == {"forward": 10, "backward": 2}


moves = st.one_of(
    st.tuples(st.sampled_from(["enter", "leave"]), st.sampled_from(Phase)),
    st.tuples(st.just("book"), st.sampled_from(STEP_PHASES)),
    st.tuples(st.sampled_from(["unwind", "backward"])),
)


@given(st.lists(st.tuples(st.floats(0, 50), moves, st.booleans()), max_size=40))
def test_host_and_device_agree_when_the_device_keeps_up_with_the_host(sequence):
    device = FakeDevice()
    clock = PhaseClock(lambda: round(device.at_ms * NANOSECONDS_PER_MS))
    timeline = DeviceTimeline(device.new_event, device.record)
    steps = StepRecorder(clock, device=timeline)
    arrivals = clock.arrivals()
    clock.leave(Phase.STARTUP)
    steps.fetch()
    for milliseconds, (name, *arguments), ends_step in sequence:
        device.works(round(milliseconds, 3))
        if name == "backward":
            clock.enter(Phase.BACKWARD)
            device.works(3)
            next(arrivals)
            timeline.gradients_arrived()
            device.works(2)
            clock.leave(Phase.BACKWARD)
        else:
            getattr(clock, name)(*arguments)
        device.catches_up()
        if ends_step:
            steps.optimizer_step()
            steps.fetch()
    for record in steps.queue:
        if record.step is not None:
            device.catches_up()
            in_step = record.spent_ns[: Phase.UNATTRIBUTED + 1]
            assert record.device_ns == pytest.approx(in_step, abs=2_000)


def test_a_device_that_nobody_uses_is_not_woken():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_initialized():
        pytest.skip("another test uses the device")
    clock = PhaseClock()
    steps = StepRecorder(clock, device=cuda_timeline(), memory=cuda_step_memory())
    clock.leave(Phase.STARTUP)
    for _ in range(3):
        steps.fetch()
        clock.enter(Phase.BACKWARD)
        clock.leave(Phase.BACKWARD)
        steps.optimizer_step()
    steps.finish()
    assert not torch.cuda.is_initialized()
    assert [(record.device_ns, record.memory) for record in steps.queue] == [(None, None)] * 5
    assert not FAILURES
