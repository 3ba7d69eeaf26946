"""What a run follows without keeping it alive: a model that its loop lets go of is freed as without TraceML."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any


class WeakList:
    """Objects in the order in which they came, each as long as somebody else holds it. They are told by identity."""

    def __init__(self) -> None:
        """Nothing is followed yet."""
        self._references: list[weakref.ref[Any]] = []

    def append(self, one: Any) -> None:
        """Follow one more."""
        self._references.append(weakref.ref(one, self._references.remove))

    def __contains__(self, wanted: object) -> bool:
        return any(one is wanted for one in self)

    def __iter__(self) -> Iterator[Any]:
        alive = (reference() for reference in self._references)
        return iter([one for one in alive if one is not None])

    def __len__(self) -> int:
        return len(self._references)
