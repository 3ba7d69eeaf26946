"""What a forked child must let go of at once: the run belongs to its parent."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class LetsGo(Protocol):
    """Something that holds descriptors of a run."""

    def let_go(self) -> None:
        """Close what a forked child inherited, without a word to anybody. Runs in the child."""
        ...


_HELD: weakref.WeakSet[LetsGo] = weakref.WeakSet()
_INSTALLED: list[bool] = []


def let_go_when_forked(held: LetsGo) -> None:
    """Have `held.let_go()` called in every child that is forked from now on."""
    if not _INSTALLED:
        _INSTALLED.append(True)
        os.register_at_fork(after_in_child=_let_go_all)
    _HELD.add(held)


def _let_go_all() -> None:
    for held in list(_HELD):
        held.let_go()
    _HELD.clear()
