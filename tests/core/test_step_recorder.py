"""The step recorder: micro-batches become steps, steps become records that lie end to end."""

from __future__ import annotations

import threading
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_memory import MemoryReading
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_core.runtime.overhead import overhead_ns_per_step


class Watch:
    """A clock that stands still between the moves of a test."""

    def __init__(self):
        self.at_ns = 0

    def __call__(self) -> int:
        return self.at_ns

    def passes(self, nanoseconds: int) -> None:
        self.at_ns += nanoseconds


def make_recorder(**options: Any) -> tuple[StepRecorder, PhaseClock, Watch]:
    watch = Watch()
    clock = PhaseClock(watch)
    return StepRecorder(clock, **options), clock, watch


def train(steps: StepRecorder, watch: Watch, count: int, *, micro_batches: int = 1, lasting_ns: int = 10) -> None:
    for _ in range(count):
        for _ in range(micro_batches):
            steps.fetch()
            watch.passes(lasting_ns)
            steps.micro_batch(4, 64)
        steps.optimizer_step()


def numbered(steps: StepRecorder) -> list:
    return [record for record in steps.queue if record.step is not None]


events = st.sampled_from(["fetch", "micro_batch", "optimizer_step", "finish"])


@given(st.lists(st.tuples(st.integers(0, 100), events), max_size=80))
def test_records_lie_end_to_end_and_leave_nothing_out_for_any_sequence_of_events(sequence):
    steps, _, watch = make_recorder()
    for nanoseconds, event in sequence:
        watch.passes(nanoseconds)
        getattr(steps, event)()
    steps.finish()
    records = list(steps.queue)
    assert sum(record.interval_ns for record in records) == watch.at_ns
    assert all(sum(record.spent_ns) == record.interval_ns for record in records)
    for earlier, later in zip(records, records[1:], strict=False):
        assert later.started_ns == earlier.started_ns + earlier.interval_ns


@given(st.lists(st.tuples(st.integers(0, 100), events), max_size=80))
def test_steps_are_numbered_one_by_one_and_each_micro_batch_is_counted_once(sequence):
    steps, _, watch = make_recorder()
    for nanoseconds, event in sequence:
        watch.passes(nanoseconds)
        getattr(steps, event)()
    steps.finish()
    assert [record.step for record in numbered(steps)] == list(range(1, steps.steps_done + 1))
    assert sum(record.micro_batches for record in steps.queue) == sum(event == "micro_batch" for _, event in sequence)


def test_a_step_goes_from_its_first_fetch_to_the_next_steps_first_fetch():
    steps, clock, watch = make_recorder()
    watch.passes(100)
    steps.fetch()
    watch.passes(3)
    steps.optimizer_step()
    clock.enter(Phase.VALIDATION)
    watch.passes(50)
    clock.leave(Phase.VALIDATION)
    steps.fetch()
    before, step = steps.queue
    assert (before.step, before.interval_ns) == (None, 100)
    assert (step.step, step.interval_ns, step.spent_ns[Phase.VALIDATION]) == (1, 53, 50)


def test_micro_batches_add_up_to_one_step():
    steps, _, watch = make_recorder()
    train(steps, watch, 3, micro_batches=4)
    steps.finish()
    found = [(record.step, record.micro_batches, record.samples, record.tokens) for record in numbered(steps)]
    assert found == [(number, 4, 16, 256) for number in (1, 2, 3)]
    assert [record.interval_ns for record in numbered(steps)] == [40, 40, 40]


def test_several_optimizers_in_one_window_are_one_step():
    steps, _, _ = make_recorder()
    steps.fetch()
    for _ in range(3):
        steps.optimizer_step()
    steps.finish()
    assert [record.step for record in numbered(steps)] == [1]


def test_an_optimizer_that_steps_outside_any_window_makes_no_step():
    steps, _, watch = make_recorder()
    steps.optimizer_step()
    watch.passes(5)
    steps.fetch()
    steps.finish()
    assert numbered(steps) == []


def test_a_window_that_no_optimizer_ended_is_recorded_but_is_no_step():
    steps, _, watch = make_recorder()
    train(steps, watch, 1)
    steps.fetch()
    watch.passes(7)
    steps.micro_batch(4, 64)
    steps.finish()
    assert steps.steps_done == 1
    assert (steps.queue[-1].step, steps.queue[-1].interval_ns, steps.queue[-1].samples) == (None, 7, 4)


def test_sizes_that_no_batch_showed_are_null():
    steps, _, _ = make_recorder()
    steps.fetch()
    steps.micro_batch()
    steps.optimizer_step()
    steps.finish()
    assert (numbered(steps)[0].samples, numbered(steps)[0].tokens) == (None, None)


def test_a_resumed_run_goes_on_counting_where_the_framework_does():
    steps, _, watch = make_recorder()
    steps.start_at(500)
    train(steps, watch, 2)
    steps.finish()
    assert [record.step for record in numbered(steps)] == [501, 502]
    assert (steps.step, steps.steps_done) == (502, 2)


def test_a_second_loop_goes_on_after_the_first_and_the_time_between_belongs_to_no_step():
    steps, _, watch = make_recorder()
    train(steps, watch, 1)
    steps.finish()
    watch.passes(1_000)
    train(steps, watch, 1)
    steps.finish()
    assert [(record.step, record.interval_ns) for record in numbered(steps)] == [(1, 10), (2, 10)]
    assert sum(record.interval_ns for record in steps.queue if record.step is None) == 1_000


def test_a_full_queue_drops_the_newest_counts_them_and_goes_on():
    steps, _, watch = make_recorder(queue_limit=3)
    train(steps, watch, 10)
    steps.finish()
    assert [record.step for record in steps.queue] == [None, 1, 2]
    assert steps.dropped == 9  # eight steps, and what came after the last one
    assert steps.steps_done == 10


def test_a_queue_that_is_emptied_takes_up_again():
    steps, _, watch = make_recorder(queue_limit=2)
    train(steps, watch, 5)
    steps.queue.clear()
    train(steps, watch, 1)
    assert [record.step for record in steps.queue] == [5]


def on_time() -> tuple[StepRecorder, PhaseClock]:
    """A recorder by the real clock, in the middle of a loop."""
    clock = PhaseClock()
    steps = StepRecorder(clock)
    steps.fetch()
    return steps, clock


def step(steps: StepRecorder) -> None:
    steps.optimizer_step()
    steps.fetch()


def test_the_end_of_a_step_gives_way_to_a_sender_that_is_late_until_its_turn_is_over():
    steps, _ = on_time()
    steps.expect_sender(-10.0)
    turn = threading.Timer(0.002, steps.expect_sender, (10.0,))
    turn.start()
    step(steps)
    turn.join()
    given_way_ns = steps.given_way_ns
    assert given_way_ns > 1_000_000
    step(steps)
    assert steps.given_way_ns == given_way_ns


def test_nobody_gives_way_to_a_sender_that_is_on_time_or_does_not_come():
    steps, _ = on_time()
    step(steps)
    steps.expect_sender(10.0)
    step(steps)
    steps.expect_sender(-10.0)
    steps.expect_sender(None)
    step(steps)
    assert steps.given_way_ns == 0


def test_a_sender_that_waits_for_something_else_gets_no_more_than_a_moment_now_and_then():
    steps, clock = on_time()
    steps.expect_sender(-10.0)
    for _ in range(3):
        step(steps)
    assert 50_000_000 <= steps.given_way_ns < 100_000_000  # once, and not three times
    assert overhead_ns_per_step(clock, steps) >= steps.given_way_ns / 3


def test_records_say_when_they_began():
    clock = PhaseClock()
    steps = StepRecorder(clock)
    before_ns = time.time_ns()
    steps.fetch()
    after_ns = time.time_ns()
    steps.optimizer_step()
    steps.finish()
    assert before_ns - 1e9 < numbered(steps)[0].started_ns < after_ns + 1e9


def test_recorder_and_clock_begin_at_the_same_moment_unless_told_otherwise():
    clock = PhaseClock()
    steps = StepRecorder(clock)
    steps.fetch()
    assert steps.queue[0].interval_ns == sum(steps.queue[0].spent_ns)


class CountingMemory:
    """An allocator that holds a byte more at every reading."""

    def __init__(self):
        self.readings = 0
        self.boundaries: list[int] = []

    def read(self) -> MemoryReading:
        self.readings += 1
        return MemoryReading(0, self.readings, 0, 0, 0, None, 0)

    def boundary(self, slot: int) -> None:
        self.boundaries.append(slot)


def test_memory_is_read_at_both_ends_of_a_step_and_kept_with_the_step():
    memory = CountingMemory()
    steps, clock, watch = make_recorder(memory=memory)
    clock.leave(Phase.STARTUP)
    train(steps, watch, 2)
    clock.enter(Phase.BACKWARD)
    steps.finish()
    assert [record.memory and record.memory.allocated_bytes for record in steps.queue] == [None, 2, 3, None]
    assert memory.boundaries == [Phase.UNATTRIBUTED, Phase.BACKWARD]


class LateDevice:
    """A device that is one record behind."""

    def __init__(self):
        self.held: list = []

    def boundary(self, slot: int) -> None:
        """Nothing."""

    def booked(self, slot: int) -> None:
        """Nothing."""

    def gradients_arrived(self) -> None:
        """Nothing."""

    def close(self, record) -> list:
        self.held.append(record)
        return [self.held.pop(0)] if len(self.held) > 1 else []

    def drain(self) -> list:
        held, self.held = self.held, []
        return held


def test_records_that_wait_for_the_device_are_handed_over_at_the_end():
    device = LateDevice()
    steps, _, watch = make_recorder(device=device)
    train(steps, watch, 3)
    assert [record.step for record in steps.queue] == [None, 1]
    steps.finish()
    assert [record.step for record in steps.queue] == [None, 1, 2, 3, None]
    assert steps.gradients_arrived == device.gradients_arrived
