"""Step memory, on a made-up allocator, and on a real GPU where there is one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.step_memory import StepMemory, cuda_step_memory
from traceml_core.loggers.error_log import FAILURES, close_error_log


class Allocator:
    """Allocates and frees bytes and keeps a running peak, as the caching allocator does."""

    def __init__(self):
        self.current = self.peak = 0
        self.retries = 0
        self.reads = 0
        self.is_made = True
        self.fails = False

    def holds(self, size_bytes: int) -> None:
        self.current = size_bytes
        self.peak = max(self.peak, size_bytes)

    def reset_peak(self) -> None:
        self.peak = self.current

    def stats(self) -> dict[str, Any]:
        self.reads += 1
        if self.fails:
            raise RuntimeError("CUDA error: unspecified launch failure")
        if not self.is_made:
            return {}
        figures = {"all": {"current": self.current, "peak": self.peak, "allocated": 0, "freed": 0}}
        return {"allocated_bytes": figures, "reserved_bytes": figures, "num_alloc_retries": self.retries}


@pytest.fixture
def allocator():
    close_error_log()
    yield Allocator()
    close_error_log()


def make_memory(allocator: Allocator) -> StepMemory:
    """A step memory that has seen the begin of the first step."""
    memory = StepMemory(allocator.stats, lambda: (1, 80_000))
    memory.read()
    return memory


def test_where_the_running_peak_grew_in_a_step_it_is_the_steps_peak(allocator):
    memory = make_memory(allocator)
    allocator.holds(900)
    allocator.holds(100)
    reading = memory.read()
    assert (reading.peak_allocated_bytes, reading.peak_reserved_bytes) == (900, 900)
    assert (reading.allocated_bytes, reading.reserved_bytes) == (100, 100)
    assert (reading.device_index, reading.total_bytes) == (1, 80_000)


def test_where_it_did_not_grow_the_most_that_was_seen_stands_for_it(allocator):
    memory = make_memory(allocator)
    allocator.holds(900)
    memory.read()
    allocator.holds(300)
    allocator.holds(200)
    assert memory.read().peak_allocated_bytes == 900  # what the step began with
    allocator.holds(350)
    assert memory.read().peak_allocated_bytes == 350


def test_the_begin_of_a_backward_is_looked_at(allocator):
    memory = make_memory(allocator)
    allocator.holds(900)
    allocator.holds(100)
    memory.read()
    allocator.holds(700)
    memory.boundary(Phase.BACKWARD)
    allocator.holds(100)
    assert memory.read().peak_allocated_bytes == 700
    assert memory.read().peak_allocated_bytes == 100


def test_other_boundaries_cost_no_look(allocator):
    memory = make_memory(allocator)
    for phase in Phase:
        if phase is not Phase.BACKWARD:
            memory.boundary(phase)
    assert allocator.reads == 1


def test_what_was_held_before_the_first_step_is_no_steps_peak(allocator):
    allocator.holds(5_000)
    allocator.holds(100)
    memory = make_memory(allocator)
    allocator.holds(300)
    assert memory.read().peak_allocated_bytes == 300


def test_a_user_who_resets_the_peak_gets_it_reset_and_the_steps_peak_stays_a_lower_bound(allocator):
    memory = make_memory(allocator)
    allocator.holds(900)
    allocator.holds(100)
    memory.read()
    allocator.reset_peak()
    allocator.holds(400)
    allocator.holds(100)
    assert allocator.peak == 400
    assert memory.read().peak_allocated_bytes == 400


def test_retries_count_from_the_allocators_start(allocator):
    memory = make_memory(allocator)
    allocator.retries = 3
    assert memory.read().allocation_retries == 3
    assert memory.read().allocation_retries == 3


def test_without_an_allocator_there_is_no_reading(allocator):
    allocator.is_made = False
    memory = make_memory(allocator)
    assert memory.read() is None
    allocator.is_made = True
    assert memory.read() is None  # the begin of the first step that can be read
    assert memory.read() is not None


def test_an_allocator_that_cannot_be_read_is_counted_and_read_again(allocator):
    memory = make_memory(allocator)
    allocator.fails = True
    assert memory.read() is None
    assert FAILURES["StepMemory"] == 1
    allocator.fails = False
    memory.read()
    assert memory.read() is not None


@given(st.lists(st.lists(st.integers(0, 1_000), max_size=8), max_size=8))
def test_a_steps_peak_lies_between_what_it_ended_with_and_its_true_peak_and_the_largest_is_exact(steps):
    allocator = Allocator()
    memory = make_memory(allocator)
    reported = []
    for sizes in steps:
        true_peak = max([allocator.current, *sizes])
        for size_bytes in sizes:
            allocator.holds(size_bytes)
        reading = memory.read()
        reported.append(reading.peak_allocated_bytes)
        assert reading.allocated_bytes <= reading.peak_allocated_bytes <= true_peak
    assert max(reported, default=0) == allocator.peak


@pytest.mark.gpu
def test_a_real_allocator_is_read_and_its_peaks_stay_the_users():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.cuda.init()
    torch.cuda.reset_peak_memory_stats()
    memory = cuda_step_memory()
    memory.read()
    block = torch.empty(64 * 2**20, dtype=torch.uint8, device="cuda")
    del block
    peak = torch.cuda.max_memory_allocated()
    reading = memory.read()
    assert reading.peak_allocated_bytes == peak >= 64 * 2**20
    assert reading.allocated_bytes == torch.cuda.memory_allocated()
    assert reading.reserved_bytes == torch.cuda.memory_reserved()
    assert reading.total_bytes == torch.cuda.get_device_properties(0).total_memory
    assert memory.read().peak_allocated_bytes < 64 * 2**20
    assert torch.cuda.max_memory_allocated() == peak
