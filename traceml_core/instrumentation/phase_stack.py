"""The stack of phases, and what moves make of it: worked out once for each sequence of moves, then looked up.

A training loop makes the same moves at every step. So a stack is one immutable object that remembers what followed
from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from traceml_core.core.phases import BACKWARD, GRAD_SYNC, UNATTRIBUTED

ARRIVAL = -(2**31)
"""The move of a gradient that arrives: what is left of the backward that made it is `grad_sync`.

The last one of a backward counts; outside of one it does nothing.
"""

KEPT = 256
KEPT_MOVES = 256
DEPTH_LIMIT = 32  # deeper than any real one: phases that are entered and never left drop off at the bottom
Kept = TypeVar("Kept")


class Replay(NamedTuple):
    """What a sequence of moves does: who owned the time before each, and the stack after the last.

    `kept` are the places of the moves that did something; null where all did: a leave of what was never entered does
    nothing, and `owners` leaves it out. `is_told` where the owner of the time made the last move: neither such a leave
    nor an in-step phase inside an around-step phase.
    """

    owners: tuple[int, ...]
    kept: tuple[int, ...] | None
    stack: PhaseStack
    is_told: bool


class PhaseStack:
    """What is claimed, from the ground up; the last claim owns the time, unless an around-step phase around it does."""

    __slots__ = ("_claims", "_known", "owner", "replays")

    def __init__(
        self, claims: tuple[int, ...] = (UNATTRIBUTED,), known: dict[tuple[int, ...], PhaseStack] | None = None
    ) -> None:
        """By default the ground, on which nothing is claimed. `known` are the stacks that come from the same ground."""
        self._claims = claims
        self._known = {claims: self} if known is None else known
        self.replays: dict[tuple[int, ...], Replay] = {}
        self.owner = _owners(claims)[-1]

    def look_up(self, moves: Sequence[int]) -> tuple[Replay, Sequence[int]]:
        """What `moves`, slot and moment in turn, come to, and the moments of those that did something.

        In no time where the same slots have been seen before.
        """
        slots, moments = tuple(moves[::2]), moves[1::2]
        replay = self.replays.get(slots) or self.replay(slots)
        return replay, moments if replay.kept is None else [moments[place] for place in replay.kept]

    def replay(self, moves: tuple[int, ...]) -> Replay:
        """Work out what `moves` make of this stack: a slot is entered, its complement left. Kept in `replays`."""
        claims, owners = list(self._claims), _owners(self._claims)
        before, kept, is_told = [], [], False
        for place, move in enumerate(moves):
            if move == ARRIVAL:
                if claims[-2:] == [BACKWARD, GRAD_SYNC]:  # backward went on after the one before
                    del claims[-1], owners[-1]
                if claims[-1] == BACKWARD:  # else it is like a leave of what was never entered
                    move = GRAD_SYNC
            depth = len(claims) if move >= 0 else _last_place(claims, ~move)
            is_told = depth > 0
            if not is_told:
                continue
            before.append(owners[-1])
            kept.append(place)
            if move >= 0:
                is_told = move > UNATTRIBUTED or owners[-1] <= UNATTRIBUTED
                claims.append(move)
                owners.append(move if is_told else owners[-1])
            else:
                del claims[depth:]
                del owners[depth:]
        stack = self._stack((*claims[:1], *claims[1:][-DEPTH_LIMIT:]))
        replay = Replay(tuple(before), None if len(kept) == len(moves) else tuple(kept), stack, is_told)
        if len(moves) <= KEPT_MOVES:
            _keep(self.replays, moves, replay)
        return replay

    def _stack(self, claims: tuple[int, ...]) -> PhaseStack:
        """The one stack with these claims."""
        found = self._known.get(claims)
        if found is None:
            found = PhaseStack(claims, self._known)
            _keep(self._known, claims, found)
        return found


def _owners(claims: tuple[int, ...]) -> list[int]:
    """Who owned the time when each of the claims was the last."""
    owners = [UNATTRIBUTED]
    for claim in claims[1:]:
        owners.append(claim if claim > UNATTRIBUTED or owners[-1] <= UNATTRIBUTED else owners[-1])
    return owners


def _last_place(claims: list[int], slot: int) -> int:
    """Where `slot` stands last among the claims; 0, the ground, where it does not."""
    for place in range(len(claims) - 1, 0, -1):
        if claims[place] == slot:
            return place
    return 0


def _keep(kept: dict[tuple[int, ...], Kept], key: tuple[int, ...], found: Kept) -> None:
    if len(kept) >= KEPT:
        kept.clear()
    kept[key] = found
