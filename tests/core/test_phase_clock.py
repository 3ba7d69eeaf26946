"""The phase clock: its parts add up, whatever is entered and left."""

from __future__ import annotations

import pytest
from clock_factory import Watch, make_clock, make_clock_with_owners, perform, timed_moves
from hypothesis import given

from traceml_core.core.phases import AROUND_STEP_PHASES, STEP_PHASES, Phase
from traceml_core.instrumentation.phase_clock import MOMENTS_LIMIT, PhaseClock


def phases_of(clock: PhaseClock) -> dict[Phase, int]:
    """The nanoseconds of each phase that has some, owners folded in."""
    spent = clock.take().spent_ns
    found: dict[Phase, int] = {}
    for (phase, _), nanoseconds in zip(clock.slots, spent, strict=False):
        if nanoseconds:
            found[phase] = found.get(phase, 0) + nanoseconds
    return found


@given(timed_moves)
def test_the_parts_add_up_to_what_passed_for_any_sequence_of_moves(sequence):
    watch = Watch()
    clock = make_clock_with_owners(watch)
    taken: list[list[int]] = []
    for nanoseconds, move in sequence:
        watch.passes(nanoseconds)
        taken += perform(clock, move)
    taken += perform(clock, ("take",))
    assert sum(map(sum, taken)) == watch.at_ns
    assert all(part >= 0 for spent in taken for part in spent)


@given(timed_moves)
def test_a_step_phase_gets_nothing_while_a_phase_around_steps_is_open(sequence):
    watch = Watch()
    clock = make_clock_with_owners(watch)
    clock.enter(Phase.VALIDATION)
    clock.take()
    in_step = 0
    for nanoseconds, move in sequence:
        if move[0] in ("leave", "unwind") and (move[0] == "unwind" or move[1] in (Phase.VALIDATION, Phase.STARTUP)):
            continue  # validation stays open
        watch.passes(nanoseconds)
        in_step += sum(sum(spent[: Phase.UNATTRIBUTED + 1]) for spent in perform(clock, move))
    in_step += sum(clock.take().spent_ns[: Phase.UNATTRIBUTED + 1])
    assert in_step == 0


@given(timed_moves)
def test_after_unwinding_nothing_is_left_of_what_came_before(sequence):
    watch = Watch()
    clock = make_clock_with_owners(watch)
    for nanoseconds, move in sequence:
        watch.passes(nanoseconds)
        perform(clock, move)
    clock.unwind()
    clock.take()
    watch.passes(7)
    assert clock.owner is Phase.UNATTRIBUTED
    assert phases_of(clock) == {Phase.UNATTRIBUTED: 7}


@given(timed_moves)
def test_the_listener_knows_who_owns_the_time_after_any_sequence_of_moves(sequence):
    watch = Watch()
    clock = make_clock_with_owners(watch)
    heard = [int(Phase.STARTUP)]
    clock.on_boundary(heard.append)
    for _, move in sequence:
        if move != ("arrivals",):  # come on another thread
            perform(clock, move)
            assert clock.slots[heard[-1]][0] is clock.owner


def test_a_clock_begins_in_startup_at_the_moment_it_is_given():
    watch = Watch(100)
    clock = PhaseClock(watch, started_ns=40)
    assert clock.owner is Phase.STARTUP
    assert clock.started_ns == 40
    assert phases_of(clock) == {Phase.STARTUP: 60}


def test_the_innermost_phase_owns_the_time():
    clock, watch = make_clock()
    clock.enter(Phase.FORWARD)
    watch.passes(3)
    clock.enter(Phase.BACKWARD)
    watch.passes(5)
    clock.leave(Phase.BACKWARD)
    watch.passes(2)
    clock.leave(Phase.FORWARD)
    watch.passes(1)
    assert phases_of(clock) == {Phase.FORWARD: 5, Phase.BACKWARD: 5, Phase.UNATTRIBUTED: 1}


@pytest.mark.parametrize("inner", STEP_PHASES)
@pytest.mark.parametrize("outer", AROUND_STEP_PHASES)
def test_a_phase_around_steps_keeps_what_a_step_phase_does_inside_it(outer, inner):
    clock, watch = make_clock()
    clock.enter(outer)
    clock.enter(inner)
    watch.passes(4)
    clock.leave(inner)
    clock.leave(outer)
    assert phases_of(clock) == {outer: 4}


def test_a_phase_around_steps_inside_another_owns_its_time():
    clock, watch = make_clock()
    clock.enter(Phase.VALIDATION)
    clock.enter(Phase.CHECKPOINT)
    watch.passes(4)
    clock.leave(Phase.CHECKPOINT)
    watch.passes(1)
    assert phases_of(clock) == {Phase.CHECKPOINT: 4, Phase.VALIDATION: 1}


def test_a_leave_without_its_enter_changes_nothing():
    clock, watch = make_clock()
    clock.enter(Phase.FORWARD)
    clock.leave(Phase.OPTIMIZER)
    watch.passes(2)
    assert clock.owner is Phase.FORWARD
    assert phases_of(clock) == {Phase.FORWARD: 2}


def test_an_exception_that_skipped_inner_leaves_is_mended_by_the_outer_one():
    clock, watch = make_clock()
    clock.enter(Phase.VALIDATION)
    clock.enter(Phase.FORWARD)
    clock.enter(Phase.CALLBACKS)
    clock.leave(Phase.VALIDATION)
    watch.passes(9)
    assert phases_of(clock) == {Phase.UNATTRIBUTED: 9}


def test_a_phase_entered_twice_is_left_twice():
    clock, watch = make_clock()
    clock.enter(Phase.FORWARD)
    clock.enter(Phase.FORWARD)
    clock.leave(Phase.FORWARD)
    watch.passes(2)
    assert phases_of(clock) == {Phase.FORWARD: 2}


def test_a_booking_takes_the_time_since_the_last_boundary_from_its_owner():
    clock, watch = make_clock()
    clock.enter(Phase.CALLBACKS)
    watch.passes(1)
    clock.leave(Phase.CALLBACKS)
    watch.passes(6)
    clock.book(Phase.CHECKPOINT)
    watch.passes(2)
    assert phases_of(clock) == {Phase.CALLBACKS: 1, Phase.CHECKPOINT: 6, Phase.UNATTRIBUTED: 2}


@pytest.mark.parametrize("listened", [False, True])
def test_what_is_left_of_a_backward_after_its_last_gradient_arrived_is_the_wait_for_others(listened):
    clock, watch = make_clock()
    if listened:
        clock.on_boundary(lambda slot: None)
    arrivals = clock.arrivals()
    clock.enter(Phase.FORWARD)
    clock.enter(Phase.BACKWARD)
    for _ in range(3):
        watch.passes(10)
        next(arrivals)
    watch.passes(12)
    clock.leave(Phase.BACKWARD)
    watch.passes(2)
    clock.leave(Phase.FORWARD)
    assert phases_of(clock) == {Phase.BACKWARD: 30, Phase.GRAD_SYNC: 12, Phase.FORWARD: 2}


def test_gradients_that_arrive_where_no_backward_is_known_say_nothing():
    clock, watch = make_clock()
    arrivals = clock.arrivals()
    next(arrivals)
    watch.passes(1)
    clock.enter(Phase.GRAD_SYNC)
    watch.passes(2)
    next(arrivals)
    watch.passes(3)
    clock.leave(Phase.GRAD_SYNC)
    clock.enter(Phase.BACKWARD)
    clock.enter(Phase.FORWARD)
    next(arrivals)
    watch.passes(4)
    clock.leave(Phase.FORWARD)
    watch.passes(5)
    clock.leave(Phase.BACKWARD)
    watch.passes(6)
    assert phases_of(clock) == {Phase.UNATTRIBUTED: 7, Phase.GRAD_SYNC: 5, Phase.FORWARD: 4, Phase.BACKWARD: 5}


def test_a_backward_of_a_callback_is_the_callbacks_whatever_arrives():
    clock, watch = make_clock()
    clock.enter(Phase.CALLBACKS)
    clock.enter(Phase.BACKWARD)
    next(clock.arrivals())
    watch.passes(4)
    clock.leave(Phase.BACKWARD)
    clock.leave(Phase.CALLBACKS)
    assert phases_of(clock) == {Phase.CALLBACKS: 4}


def test_a_leave_without_its_enter_is_no_boundary_for_a_booking():
    clock, watch = make_clock()
    clock.enter(Phase.INPUT_WAIT)
    watch.passes(4)
    clock.leave(Phase.H2D)
    watch.passes(1)
    clock.book(Phase.H2D)
    assert phases_of(clock) == {Phase.H2D: 5}


def test_an_owner_has_a_slot_of_its_own():
    clock, watch = make_clock()
    slot = clock.slot(Phase.CALLBACKS, "EarlyStopping")
    assert clock.slot(Phase.CALLBACKS, "EarlyStopping") == slot
    assert clock.slot(Phase.LOGGING, "EarlyStopping") != slot
    clock.enter(slot)
    assert clock.owner is Phase.CALLBACKS
    watch.passes(3)
    clock.leave(slot)
    assert clock.take().spent_ns[slot] == 3


@pytest.mark.parametrize("phase", [*STEP_PHASES, Phase.UNATTRIBUTED])
def test_a_step_phase_has_no_owners(phase):
    with pytest.raises(ValueError, match=phase.key):
        PhaseClock().slot(phase, "Somebody")


def test_a_slot_made_in_the_middle_of_a_step_counts_at_once():
    clock, watch = make_clock()
    watch.passes(1)
    slot = clock.slot(Phase.LOGGING, "CSVLogger")
    clock.enter(slot)
    watch.passes(4)
    taken = clock.take()
    now_ns, spent = taken.ended_ns, taken.spent_ns
    assert (now_ns, spent[Phase.UNATTRIBUTED], spent[slot]) == (5, 1, 4)


def test_several_listeners_are_told_in_turn_and_all_taken_away_at_once():
    clock, _ = make_clock()
    heard: list[tuple] = []
    clock.on_boundary(lambda slot: heard.append(("first", slot)), lambda slot: heard.append(("booked", slot)))
    clock.on_boundary(lambda slot: heard.append(("second", slot)))
    clock.enter(Phase.FORWARD)
    clock.book(Phase.OPTIMIZER)
    assert heard == [("first", Phase.FORWARD), ("second", Phase.FORWARD), ("booked", Phase.OPTIMIZER)]
    clock.on_boundary(None)
    clock.leave(Phase.FORWARD)
    assert len(heard) == 3


def test_a_real_clock_accounts_for_all_the_time():
    clock = PhaseClock()
    total = 0
    for _ in range(100):
        clock.enter(Phase.FORWARD)
        clock.leave(Phase.FORWARD)
        taken = clock.take()
        total += sum(taken.spent_ns)
    assert total == taken.ended_ns - clock.started_ns


def test_what_gathers_in_a_long_time_without_a_step_is_added_up_on_the_way():
    clock, watch = make_clock()
    clock.enter(Phase.VALIDATION)
    for _ in range(MOMENTS_LIMIT):
        clock.enter(Phase.FORWARD)
        watch.passes(2)
        clock.leave(Phase.FORWARD)
        watch.passes(1)
    taken = clock.take()
    assert sum(len(moments) for _, moments in taken.pieces) <= MOMENTS_LIMIT
    assert taken.spent_ns[Phase.VALIDATION] == sum(taken.spent_ns) == 3 * MOMENTS_LIMIT


def test_what_is_booked_in_a_long_evaluation_is_added_up_on_the_way():
    clock, watch = make_clock()
    for _ in range(2 * MOMENTS_LIMIT):
        watch.passes(3)
        clock.book(Phase.VALIDATION)
    taken = clock.take()
    assert len(taken.pieces) <= MOMENTS_LIMIT
    assert taken.spent_ns[Phase.VALIDATION] == sum(taken.spent_ns) == 6 * MOMENTS_LIMIT


def test_where_somebody_listens_what_gathers_is_added_up_too():
    clock, watch = make_clock()
    clock.on_boundary(lambda slot: None)
    for _ in range(2 * MOMENTS_LIMIT):
        clock.enter(Phase.LOGGING)
        watch.passes(2)
        clock.leave(Phase.LOGGING)
    taken = clock.take()
    assert len(taken.pieces) <= MOMENTS_LIMIT + 1
    assert taken.spent_ns[Phase.LOGGING] == 4 * MOMENTS_LIMIT


def test_a_phase_that_is_entered_and_never_left_costs_no_more_with_every_step():
    clock, watch = make_clock()
    for _ in range(1_000):
        clock.enter(Phase.FORWARD)
        watch.passes(1)
        clock.take()
    clock.unwind()
    clock.enter(Phase.BACKWARD)
    watch.passes(5)
    assert phases_of(clock) == {Phase.BACKWARD: 5}
