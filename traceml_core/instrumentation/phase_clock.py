"""The phase clock: one stack of phases whose top owns the time, so that the timeline is a partition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from time import perf_counter_ns

from traceml_core.core.phases import UNATTRIBUTED, Phase
from traceml_core.instrumentation.phase_stack import ARRIVAL, PhaseStack
from traceml_core.instrumentation.stretches import Piece, Stretches

MOMENTS_LIMIT = 4096
UNREAD_LIMIT = 512


class PhaseClock:
    """Attributes the training thread's time, each nanosecond to exactly one slot.

    A *slot* is an index into the per-slot nanoseconds: a `Phase`, or one that `slot()` made for a phase with an owner's
    name (a callback's). The top of the stack owns the time. Inside an around-step phase (validation, a callback) an
    in-step phase claims nothing: validation's forward is validation.

    `enter(slot)` gives a slot the time from now on, until `leave(slot)` gives it back to what owned it before. Both
    note the moment and no more; who owned the time until then is looked up when somebody asks, and that is mostly the
    sender, on its own thread. Between two steps of training the processor's caches hold none of this code, and what
    little runs at a boundary is most of what measuring costs. Where somebody listens to boundaries, they are looked up
    at once. `boundaries` counts what was noted.

    A hook that runs at every step saves a call by saying `note((slot, now()))` for an enter and `note((~slot, now()))`
    for a leave; it asks for `note` once the listeners are there.

    Only the training thread may call it. Nothing here raises on unbalanced use: a leave without its enter does
    nothing, a leave that skips inner enters drops them.
    """

    __slots__ = (
        "_booked",
        "_boundary",
        "_folded_ns",
        "_ground",
        "_moves",
        "_origin",
        "_pieces",
        "_slot_of",
        "_taken_ns",
        "_unread",
        "boundaries",
        "note",
        "now",
        "slots",
        "started_ns",
    )

    note: Callable[[tuple[int, int]], object]

    def __init__(self, now: Callable[[], int] = perf_counter_ns, started_ns: int | None = None) -> None:
        """Start the clock in `startup`, at `started_ns` of the clock `now` (default: this moment)."""
        self.now = now
        self.started_ns = self._taken_ns = now() if started_ns is None else started_ns
        self.slots: list[tuple[Phase, str | None]] = [(phase, None) for phase in Phase]
        self._slot_of: dict[tuple[Phase, str], int] = {}
        self._ground = PhaseStack()
        # What the moves lead on from: a stack, or that with which the stretches end which were taken last.
        self._origin: PhaseStack | Stretches = self._ground.replay((Phase.STARTUP.value,)).stack
        self._folded_ns: Sequence[int] = ()
        self._pieces: list[Piece] = []
        self._moves: list[int] = []
        self._unread = 0
        self.boundaries = 0
        self._boundary: Callable[[int], None] | None = None
        self._booked: Callable[[int], None] | None = None
        # Slot and moment in one call, so that no signal's handler that raises can part them.
        self.note = self._moves.extend

    def enter(self, slot: int) -> None:
        """`slot` owns the time from now on, until it is left."""
        self.note((slot, self.now()))

    def leave(self, slot: int) -> None:
        """Give the time back to what owned it before `slot` was entered."""
        self.note((~slot, self.now()))
        self.keep_short()

    def keep_short(self) -> None:
        """Add up what has gathered, where that is much; for whoever says `note` in a long time without a step."""
        if len(self._moves) + len(self._pieces) > MOMENTS_LIMIT:
            self._fold()

    def arrivals(self) -> Iterator[None]:
        """Each `next` notes that a gradient has arrived: what is left of the backward that made it is `grad_sync`.

        The last one of a backward counts, and none outside of one. The thread of autograd's on which it arrives may ask
        for it: the training thread waits in backward. All of it is C, so that a hook takes no frame of Python's.
        """
        return map(self._moves.extend, zip(repeat(ARRIVAL), iter(self.now, None), strict=False))

    @property
    def owner(self) -> Phase:
        """The phase that owns the time now."""
        return self.slots[self._stack().owner][0]

    def slot(self, phase: Phase, owner: str) -> int:
        """The slot of `phase` for an owner such as a callback's class name; made when first asked for.

        Raises:
            ValueError: `phase` lies in a step; only around-step phases have owners.
        """
        if phase <= Phase.UNATTRIBUTED:
            raise ValueError(f"an owner's phase must lie around steps, not {phase.key!r}")
        found = self._slot_of.get((phase, owner))
        if found is None:
            found = self._slot_of[phase, owner] = len(self.slots)
            self.slots.append((phase, owner))
        return found

    def on_boundary(self, listener: Callable[[int], None] | None, booked: Callable[[int], None] | None = None) -> None:
        """Call `listener(slot)` whenever `slot` begins to own the time.

        It may be the slot that owned it before. What an in-step phase does inside an around-step phase is not told, and
        neither are gradients that arrive. `booked(slot)` is called when `book` gave the last stretch to a slot.
        Listeners come on top of each other and must not raise; a null `listener` takes all of them away.
        """
        if listener is None:
            self._boundary = self._booked = None
            self.note = self._moves.extend
            return
        earlier = self._boundary
        self._boundary = listener if earlier is None else _both(earlier, listener)
        self._booked = booked or self._booked
        self.note = self._tell

    def book(self, slot: int) -> None:
        """Give `slot` the time since the last boundary.

        For what is known only afterwards: where a framework tells at its end that a checkpoint was written. Inside an
        around-step phase an in-step phase is given nothing.
        """
        now, owner = self.now(), self._stack().owner
        if slot <= UNATTRIBUTED < owner:
            self._pieces.append(((owner,), [now]))
            return
        self._pieces.append(((slot,), [now]))
        if self._booked is not None:
            self._booked(slot)
        self.keep_short()

    def unwind(self) -> None:
        """Drop whatever is on the stack: after an exception, or where a loop begins or ends."""
        now = self.now()
        self._pieces.append(((self._stack().owner,), [now]))
        self._origin = self._ground
        if self._boundary is not None:
            self._boundary(self._ground.owner)

    def take(self) -> Stretches:
        """Who owned the time since the last `take`, up to the present moment; counting starts anew."""
        now, moves = self.now(), self._moves
        self.boundaries += len(moves) // 2
        taken = Stretches(self._taken_ns, now, self._pieces, tuple(moves), self._origin, self._folded_ns)
        moves.clear()
        self._origin, self._taken_ns, self._pieces, self._folded_ns = taken, now, [], ()
        self._unread += 1
        if self._unread > UNREAD_LIMIT:  # nobody may ask for a long time, and they hold on to each other until then
            self._stack()
        return taken

    def _tell(self, move: tuple[int, int]) -> None:
        self._moves.extend(move)
        stack, is_told = self._settle()
        if is_told and self._boundary is not None:
            self._boundary(stack.owner)

    def _stack(self) -> PhaseStack:
        """The stack as it is now."""
        return self._settle()[0]

    def _settle(self) -> tuple[PhaseStack, bool]:
        """Look up what was noted so far: the stack, and whether the owner of the time made the last of the moves."""
        moves, origin = self._moves, self._origin
        stack = origin if isinstance(origin, PhaseStack) else origin.end
        is_told, self._unread = False, 0
        if moves:
            noted = moves[:]
            del moves[: len(noted)]
            replay, moments = stack.look_up(noted)
            self.boundaries += len(noted) // 2
            if moments:
                self._pieces.append((replay.owners, moments))
            stack, is_told = replay.stack, replay.is_told
        self._origin = stack
        return stack, is_told

    def _fold(self) -> None:
        """Add up what has gathered in a long time without a step, so that it does not grow with it."""
        stack, last_ns = self._stack(), self._last_boundary_ns()
        gathered = Stretches(self._taken_ns, last_ns, self._pieces, (), stack, self._folded_ns)
        self._taken_ns, self._pieces, self._folded_ns = last_ns, [], gathered.spent_ns

    def _last_boundary_ns(self) -> int:
        return self._pieces[-1][1][-1] if self._pieces else self._taken_ns


def _both(first: Callable[[int], None], second: Callable[[int], None]) -> Callable[[int], None]:
    def boundary(slot: int) -> None:
        first(slot)
        second(slot)

    return boundary
