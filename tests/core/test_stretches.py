"""Stretches: what was taken from the clock comes to the same whenever, and by whomever, it is looked up."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator

from clock_factory import Watch, make, make_clock, make_clock_with_owners, perform, timed_moves
from hypothesis import given
from hypothesis import strategies as st

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.phase_clock import UNREAD_LIMIT
from traceml_core.instrumentation.stretches import Stretches


@given(timed_moves, st.randoms(use_true_random=False))
def test_what_was_taken_comes_to_the_same_whenever_it_is_looked_up(sequence, random):
    watch = Watch()
    clock, other = make_clock_with_owners(watch), make_clock_with_owners(watch)
    at_once, later = [], []
    for nanoseconds, move in [*sequence, (0, ("take",))]:
        watch.passes(nanoseconds)
        at_once += perform(clock, move)
        taken = make(other, move)
        later += [] if taken is None else [taken]
    places = list(range(len(later)))
    random.shuffle(places)
    found = {place: later[place].spent_ns for place in places}
    assert [found[place] for place in sorted(found)] == at_once


def test_what_nobody_looks_up_does_not_hold_on_to_all_that_came_before():
    clock, watch = make_clock()
    for _ in range(1_000):
        clock.enter(Phase.FORWARD)
        watch.passes(1)
        taken = clock.take()
    assert len(list(before(taken))) <= UNREAD_LIMIT + 1
    assert taken.spent_ns[Phase.FORWARD] == 1
    assert list(before(taken)) == []


def before(stretches: Stretches) -> Iterator[Stretches]:
    """The stretches that these ones lead on from, and hold on to."""
    while isinstance(stretches.origin, Stretches):
        stretches = stretches.origin
        yield stretches


def test_two_threads_that_look_up_the_same_find_the_same():
    clock, watch = make_clock()
    queue: deque[Stretches] = deque()
    found: list[list[int]] = []
    is_over = threading.Event()

    def look_up() -> None:
        while not is_over.is_set() or queue:
            if queue:
                found.append(queue.popleft().spent_ns)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=look_up)
    thread.start()
    try:
        for step in range(5_000):
            clock.enter(Phase.FORWARD)
            watch.passes(3)
            if step % 7:
                clock.leave(Phase.FORWARD)
            if step % 5 == 0:
                assert clock.owner is (Phase.UNATTRIBUTED if step % 7 else Phase.FORWARD)
            watch.passes(1)
            clock.leave(Phase.FORWARD)
            queue.append(clock.take())
    finally:
        is_over.set()
        thread.join()
        sys.setswitchinterval(interval)
    alone = [3 if step % 7 else 4 for step in range(5_000)]
    assert [spent[Phase.FORWARD] for spent in found] == alone
    assert all(sum(spent) == 4 for spent in found)
