"""Stretches: who owned the training thread's time, one after the other, not added up yet."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from traceml_core.core.phases import Phase

PHASES = len(Phase)  # an enum counts itself in Python, and this is asked for every step


class Stretches(msgspec.Struct, frozen=True, gc=False):
    """The time from `began_ns` to `ended_ns` (`perf_counter_ns`), each nanosecond with one slot of the clock.

    A piece holds slots and as many moments, in order: each slot owned the time from the moment before its own, the
    first from the piece before. `owner` owned what comes after the last piece. `folded_ns` was added up before.
    """

    began_ns: int
    ended_ns: int
    pieces: Sequence[tuple[Sequence[int], Sequence[int]]]
    owner: int
    folded_ns: Sequence[int] = ()

    @property
    def spent_ns(self) -> list[int]:
        """Nanoseconds per slot, for every phase and up to the last slot that owned any; added up here and now."""
        slots_used = max(self.owner + 1, PHASES, *[max(slots) + 1 for slots, _ in self.pieces])
        spent = [*self.folded_ns, *[0] * (slots_used - len(self.folded_ns))]
        mark = self.began_ns
        for slots, moments in self.pieces:
            for slot, moment in zip(slots, moments, strict=True):
                spent[slot] += moment - mark
                mark = moment
        spent[self.owner] += self.ended_ns - mark
        return spent
