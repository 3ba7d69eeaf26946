"""Waiting for what another process or thread does: for the event, and never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

# Nothing takes this long: who waits for it in vain hangs. A crowded machine may take its time.
LIMIT_S = 120.0
LOOK_S = 0.02

Found = TypeVar("Found")


def wait_for(condition: Callable[[], Found], limit_s: float = LIMIT_S) -> Found:
    """What `condition` gives as soon as it is true.

    Raises:
        TimeoutError: it was not within `limit_s`.
    """
    until_s = time.monotonic() + limit_s
    while time.monotonic() < until_s:
        found = condition()
        if found:
            return found
        time.sleep(LOOK_S)
    raise TimeoutError(f"not within {limit_s} s: {condition}")
