"""The phase clock: an exclusive stack of phases whose parts always add up to the time that passed."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns

from traceml_core.core.phases import UNATTRIBUTED, Phase

MOVES_LIMIT = 4096


class PhaseClock:
    """Attributes the training thread's time, each nanosecond to exactly one slot.

    A *slot* is an index into the per-slot nanoseconds: a `Phase`, or one that `slot()` made for a phase with an owner's
    name (a callback's). The top of the stack owns the time. Inside an around-step phase (validation, a callback) an
    in-step phase claims nothing: validation's forward is validation.

    `enter(slot)` gives a slot the time from now on, until `leave(slot)` gives it back to what owned it before. Both
    note the moment and no more; the stack is worked out when somebody asks, once a step. Between two steps of training
    the processor's caches hold none of this code, and what little runs at a boundary is most of what measuring costs.
    Where somebody listens to boundaries, they are worked out at once. `boundaries` counts those worked out.

    Only the training thread may call it. Nothing here raises on unbalanced use: a leave without its enter does
    nothing, a leave that skips inner enters drops them.
    """

    __slots__ = (
        "_booked",
        "_boundary",
        "_claims",
        "_mark",
        "_moves",
        "_now",
        "_owner",
        "_owners",
        "_slot_of",
        "_spent",
        "boundaries",
        "enter",
        "leave",
        "slots",
        "started_ns",
    )

    enter: Callable[[int], None]
    leave: Callable[[int], None]

    def __init__(self, now: Callable[[], int] = perf_counter_ns, started_ns: int | None = None) -> None:
        """Start the clock in `startup`, at `started_ns` of the clock `now` (default: this moment)."""
        self._now = now
        self.started_ns = self._mark = now() if started_ns is None else started_ns
        self.slots: list[tuple[Phase, str | None]] = [(phase, None) for phase in Phase]
        self._slot_of: dict[tuple[Phase, str], int] = {}
        self._spent = [0] * len(Phase)
        self._owner = Phase.STARTUP.value
        self._claims = [UNATTRIBUTED, self._owner]
        self._owners = [UNATTRIBUTED, self._owner]
        self._moves: list[int] = []
        self.boundaries = 0
        self._boundary: Callable[[int], None] | None = None
        self._booked: Callable[[int, int | None], None] | None = None
        self._note_moves()

    @property
    def owner(self) -> Phase:
        """The phase that owns the time now."""
        self._settle()
        return self.slots[self._owner][0]

    def slot(self, phase: Phase, owner: str) -> int:
        """The slot of an around-step phase's time that belongs to `owner`, such as a callback's class name."""
        if phase <= Phase.UNATTRIBUTED:
            raise ValueError(f"phase {phase.key!r} lies inside a step; only a phase around steps has owners")
        found = self._slot_of.get((phase, owner))
        if found is None:
            found = self._slot_of[phase, owner] = len(self.slots)
            self.slots.append((phase, owner))
            self._spent.append(0)
        return found

    def on_boundary(
        self, listener: Callable[[int], None] | None, booked: Callable[[int, int | None], None] | None = None
    ) -> None:
        """Call `listener(slot)` where `slot` owns the time from now on: the seam for an accelerator.

        It may be the slot that owned it before. What an in-step phase does inside an around-step phase is not told.
        `booked(slot, since_ns)` is called when `book` gave the last stretch to a slot: all of it where `since_ns` is
        null. Listeners come on top of each other and must not raise; a null `listener` takes all of them away.
        `enter` and `leave` are others from here on: what holds them asks for them after this.
        """
        if listener is None:
            self._boundary = self._booked = None
            self._note_moves()
            return
        earlier = self._boundary
        self._boundary = listener if earlier is None else _both(earlier, listener)
        self._booked = booked or self._booked
        self._tell_moves()

    def book(self, slot: int, since_ns: int | None = None) -> None:
        """Give `slot` the time since the last boundary, or since `since_ns` where that is later.

        For what a framework tells only afterwards: a save that has just ended, the gradients' arrival. Inside an
        around-step phase an in-step phase is given nothing.
        """
        now = self._now()
        self._settle()
        mark = self._mark
        spent = self._spent
        self._mark = now
        owner = self._owner
        if slot <= UNATTRIBUTED < owner:
            spent[owner] += now - mark
            return
        if since_ns is not None and since_ns > mark:
            since_ns = min(since_ns, now)
            spent[owner] += since_ns - mark
            mark = since_ns
        else:
            since_ns = None
        spent[slot] += now - mark
        if self._booked is not None:
            self._booked(slot, since_ns)

    def unwind(self) -> None:
        """Drop whatever is on the stack: after an exception, or where a loop begins or ends."""
        now = self._now()
        self._settle()
        self._spent[self._owner] += now - self._mark
        self._mark = now
        del self._claims[1:]
        del self._owners[1:]
        self._owner = owner = self._owners[0]
        if self._boundary is not None:
            self._boundary(owner)

    def take(self) -> tuple[int, list[int]]:
        """The present moment, and the nanoseconds per slot since the last `take`; counting starts anew."""
        now = self._now()
        self._settle()
        spent = self._spent
        spent[self._owner] += now - self._mark
        self._mark = now
        self._spent = [0] * len(spent)
        return now, spent

    def _note_moves(self) -> None:
        """Make `enter` and `leave` such that they note slot and moment; a leave notes the slot's complement.

        Both at once, so that no signal's handler that raises can part them.
        """
        now, moves, settle = self._now, self._moves, self._settle
        note = moves.extend

        def enter(slot: int) -> None:
            note((slot, now()))

        def leave(slot: int) -> None:
            note((~slot, now()))
            if len(moves) > MOVES_LIMIT:
                settle()

        self.enter, self.leave = enter, leave

    def _tell_moves(self) -> None:
        """Make `enter` and `leave` such that the listener hears at once who owns the time."""
        now, moves, settle = self._now, self._moves, self._settle

        def enter(slot: int) -> None:
            moves.extend((slot, now()))
            if settle() and self._boundary is not None:
                self._boundary(self._owner)

        def leave(slot: int) -> None:
            enter(~slot)

        self.enter, self.leave = enter, leave

    def _settle(self) -> bool:
        """Work out the moves noted so far; whether the last of them was one that the owner of the time made."""
        moves = self._moves
        if not moves:
            return False
        claims, owners, spent = self._claims, self._owners, self._spent
        owner, mark, counts = self._owner, self._mark, False
        self.boundaries += len(moves) // 2
        for slot, at in zip(moves[::2], moves[1::2], strict=True):
            if slot >= 0:
                spent[owner] += at - mark
                claims.append(slot)
                counts = slot > UNATTRIBUTED or owner <= UNATTRIBUTED
                if counts:
                    owner = slot
                owners.append(owner)
            elif claims[-1] == ~slot and len(claims) > 1:
                spent[owner] += at - mark
                claims.pop()
                owners.pop()
                owner = owners[-1]
                counts = True
            else:
                depth = _last_place(claims, ~slot)
                counts = depth > 0
                if not counts:
                    continue
                spent[owner] += at - mark
                del claims[depth:]
                del owners[depth:]
                owner = owners[-1]
            mark = at
        moves.clear()
        self._owner, self._mark = owner, mark
        return counts


def _last_place(claims: list[int], slot: int) -> int:
    """Where `slot` stands last among the claims; 0, the ground, where it does not."""
    for place in range(len(claims) - 1, 0, -1):
        if claims[place] == slot:
            return place
    return 0


def _both(first: Callable[[int], None], second: Callable[[int], None]) -> Callable[[int], None]:
    def boundary(slot: int) -> None:
        first(slot)
        second(slot)

    return boundary
