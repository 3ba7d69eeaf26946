"""The phases: what a rank's training thread is doing now. Everything else spells them from here."""

from __future__ import annotations

from enum import IntEnum
from functools import cached_property


class Phase(IntEnum):
    """One phase of the timeline; the value is its index in every tuple of per-phase numbers.

    Phases below `UNATTRIBUTED` lie inside a training step, those above it lie around steps, and `UNATTRIBUTED`
    is the time that nothing claims.
    """

    INPUT_WAIT = 0
    H2D = 1
    FORWARD = 2
    BACKWARD = 3
    GRAD_SYNC = 4
    OPTIMIZER = 5
    UNATTRIBUTED = 6
    STARTUP = 7
    LOADER_START = 8
    VALIDATION = 9
    CHECKPOINT = 10
    LOGGING = 11
    CALLBACKS = 12
    TEARDOWN = 13

    @cached_property
    def key(self) -> str:
        """The phase's name in JSON keys, table columns and metric names, such as `input_wait`."""
        return self.name.lower()

    @property
    def label(self) -> str:
        """The phase's name on the card, such as 'waiting for data'."""
        return _LABELS.get(self, self.key.replace("_", " "))


_LABELS = {Phase.INPUT_WAIT: "waiting for data", Phase.H2D: "copy to device", Phase.GRAD_SYNC: "gradient sync"}

# As plain integers, for what runs at every step: a member is slow to look up in its class, to compare and to index by.
INPUT_WAIT, H2D, FORWARD, BACKWARD, GRAD_SYNC, OPTIMIZER, UNATTRIBUTED = range(7)

STEP_PHASES = tuple(phase for phase in Phase if phase < Phase.UNATTRIBUTED)
AROUND_STEP_PHASES = tuple(phase for phase in Phase if phase > Phase.UNATTRIBUTED)
