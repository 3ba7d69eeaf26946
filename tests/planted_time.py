"""A clock that goes on when a test says so: what is planted is found again, whatever the machine does."""

from __future__ import annotations


class PlantedTime:
    """Give it to a `PhaseClock`. Each look takes a nanosecond, so that whatever is done takes some time."""

    def __init__(self) -> None:
        """A clock at zero."""
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 1
        return self.now_ns

    def passes(self, seconds: float) -> None:
        """So much time passes; in place of `time.sleep`."""
        self.now_ns += round(seconds * 1e9)
