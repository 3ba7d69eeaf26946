"""Stretches: who owned the training thread's time, one after the other, neither looked up nor added up yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.phase_stack import PhaseStack

PHASES = len(Phase)  # an enum counts itself in Python, and this is asked for every step
Piece = tuple[Sequence[int], Sequence[int]]


class Stretches(msgspec.Struct, gc=False):
    """The time from `began_ns` to `ended_ns` (`perf_counter_ns`), each nanosecond with one slot of the clock.

    A piece holds slots and as many moments, in order: each slot owned the time from the moment before its own, the
    first from the piece before. `moves` were noted after the pieces: slot and moment in turn, a slot where it is
    entered, its complement where it is left. They lead on from the stack `origin`, or from the one with which those
    stretches ended. `folded_ns` was added up before.

    What the moves come to is looked up when it is asked for, once. Any thread may ask; two that do at once both find
    the same.
    """

    began_ns: int
    ended_ns: int
    pieces: Sequence[Piece]
    moves: Sequence[int]
    origin: PhaseStack | Stretches
    folded_ns: Sequence[int] = ()
    _found: _Found | None = None

    @property
    def end(self) -> PhaseStack:
        """The stack at `ended_ns`."""
        return self._look_up().stack

    @property
    def spent_ns(self) -> list[int]:
        """Nanoseconds per slot, for every phase and up to the last slot that owned any; added up here and now."""
        pieces, stack = self._look_up()
        slots_used = max(stack.owner + 1, PHASES, *[max(slots) + 1 for slots, _ in pieces])
        spent = [*self.folded_ns, *[0] * (slots_used - len(self.folded_ns))]
        mark = self.began_ns
        for slots, moments in pieces:
            for slot, moment in zip(slots, moments, strict=True):
                spent[slot] += moment - mark
                mark = moment
        spent[stack.owner] += self.ended_ns - mark
        return spent

    def _look_up(self) -> _Found:
        """What this came to; what comes before it is looked up with it, where nobody has asked for that yet."""
        if self._found is not None:
            return self._found
        unread, origin = [], self.origin
        while isinstance(origin, Stretches) and origin._found is None:
            unread.append(origin)
            origin = origin.origin
        stack = origin.end if isinstance(origin, Stretches) else origin
        for earlier in reversed(unread):
            stack = earlier._found_from(stack).stack
        return self._found_from(stack)

    def _found_from(self, stack: PhaseStack) -> _Found:
        replay, moments = stack.look_up(self.moves)
        pieces = [*self.pieces, (replay.owners, moments)] if moments else self.pieces
        found = self._found = _Found(pieces, replay.stack)
        self.origin = stack  # what came before is let go of
        return found


class _Found(NamedTuple):
    """What the moves came to: all pieces, and the stack at the end."""

    pieces: Sequence[Piece]
    stack: PhaseStack
