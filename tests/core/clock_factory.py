"""Phase clocks on a watch that tests set, and any sequence of moves on them."""

from __future__ import annotations

from hypothesis import strategies as st

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.stretches import Stretches

OWNERS = ("Checkpoint", "EarlyStopping")


class Watch:
    """A clock that stands still between the moves of a test."""

    def __init__(self, at_ns: int = 0):
        self.at_ns = at_ns

    def __call__(self) -> int:
        return self.at_ns

    def passes(self, nanoseconds: int) -> None:
        self.at_ns += nanoseconds


def make_clock(at_ns: int = 0) -> tuple[PhaseClock, Watch]:
    """A clock that is past its start-up, and its watch."""
    watch = Watch(at_ns)
    clock = PhaseClock(watch)
    clock.leave(Phase.STARTUP)
    clock.take()
    return clock, watch


slots = st.integers(0, len(Phase) + len(OWNERS) - 1)
moves = st.one_of(
    st.tuples(st.sampled_from(["enter", "leave"]), slots),
    st.tuples(st.just("book"), slots),
    st.tuples(st.sampled_from(["unwind", "take", "arrivals"])),
)
timed_moves = st.lists(st.tuples(st.integers(0, 500), moves), max_size=60)


def make_clock_with_owners(watch: Watch) -> PhaseClock:
    clock = PhaseClock(watch)
    for owner in OWNERS:
        clock.slot(Phase.CALLBACKS, owner)
    return clock


def make(clock: PhaseClock, move: tuple) -> Stretches | None:
    """Make a move; gives what it took."""
    name, *arguments = move
    result = getattr(clock, name)(*arguments)
    return next(result) if name == "arrivals" else result


def perform(clock: PhaseClock, move: tuple) -> list[list[int]]:
    """Make a move; gives what it took, added up at once."""
    taken = make(clock, move)
    return [] if taken is None else [taken.spent_ns]
