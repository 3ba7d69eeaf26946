"""The phase clock: an exclusive stack of phases whose parts always add up to the time that passed."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns

from traceml_core.core.phases import Phase


class PhaseClock:
    """Attributes the training thread's time, each nanosecond to exactly one slot.

    A *slot* is an index into the per-slot nanoseconds: a `Phase`, or one that `slot()` made for a phase with an owner's
    name (a callback's). The top of the stack owns the time; entering or leaving is one clock read. Inside an
    around-step phase (validation, a callback) an in-step phase claims nothing: validation's forward is validation.

    Only the training thread may call it. Nothing here raises on unbalanced use: a leave without its enter does
    nothing, a leave that skips inner enters drops them.
    """

    __slots__ = (
        "_booked",
        "_boundary",
        "_claims",
        "_mark",
        "_now",
        "_owner",
        "_owners",
        "_slot_of",
        "_spent",
        "boundaries",
        "slots",
        "started_ns",
    )

    def __init__(self, now: Callable[[], int] = perf_counter_ns, started_ns: int | None = None) -> None:
        """Start the clock in `startup`, at `started_ns` of the clock `now` (default: this moment)."""
        self._now = now
        self.started_ns = self._mark = now() if started_ns is None else started_ns
        self.boundaries = 0
        self.slots: list[tuple[Phase, str | None]] = [(phase, None) for phase in Phase]
        self._slot_of: dict[tuple[Phase, str], int] = {}
        self._spent = [0] * len(Phase)
        self._claims: list[int] = [Phase.UNATTRIBUTED, Phase.STARTUP]
        self._owners: list[int] = [Phase.UNATTRIBUTED, Phase.STARTUP]
        self._owner: int = Phase.STARTUP
        self._boundary: Callable[[int], None] | None = None
        self._booked: Callable[[int, int | None], None] | None = None

    @property
    def owner(self) -> Phase:
        """The phase that owns the time now."""
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
        """
        if listener is None:
            self._boundary = self._booked = None
            return
        earlier = self._boundary
        self._boundary = listener if earlier is None else _both(earlier, listener)
        self._booked = booked or self._booked

    def enter(self, slot: int) -> None:
        """`slot` owns the time from now on, until it is left."""
        now = self._now()
        owner = self._owner
        self._spent[owner] += now - self._mark
        self._mark = now
        self.boundaries += 1
        self._claims.append(slot)
        if slot > 6 or owner <= 6:  # Phase.UNATTRIBUTED, spelled out: an attribute lookup would cost more than the test
            self._owners.append(slot)
            self._owner = slot
            if self._boundary is not None:
                self._boundary(slot)
        else:
            self._owners.append(owner)

    def leave(self, slot: int) -> None:
        """Give the time back to what owned it before `slot` was entered."""
        claims = self._claims
        if claims[-1] == slot:
            depth = len(claims) - 1
        elif slot in claims:
            depth = len(claims) - 1 - claims[::-1].index(slot)
        else:
            return
        if depth == 0:
            return
        now = self._now()
        self._spent[self._owner] += now - self._mark
        self._mark = now
        del claims[depth:]
        del self._owners[depth:]
        self._owner = owner = self._owners[-1]
        if self._boundary is not None:
            self._boundary(owner)

    def book(self, slot: int, since_ns: int | None = None) -> None:
        """Give `slot` the time since the last boundary, or since `since_ns` where that is later.

        For what a framework tells only afterwards: a save that has just ended, the gradients' arrival. Inside an
        around-step phase an in-step phase is given nothing.
        """
        now = self._now()
        mark = self._mark
        spent = self._spent
        self._mark = now
        owner = self._owner
        if slot <= 6 < owner:  # Phase.UNATTRIBUTED, as in `enter`
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
        spent = self._spent
        spent[self._owner] += now - self._mark
        self._mark = now
        self._spent = [0] * len(spent)
        return now, spent


def _both(first: Callable[[int], None], second: Callable[[int], None]) -> Callable[[int], None]:
    def boundary(slot: int) -> None:
        first(slot)
        second(slot)

    return boundary
