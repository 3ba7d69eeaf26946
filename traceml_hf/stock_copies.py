"""Copies and pickles of an instance that carries attributes of ours are made of what it has without them.

`copy` and `pickle` ask an instance for its `__reduce_ex__`, and torch's DataParallel asks a module for its replica:
while there is anything to leave out, they find an answer of ours on the instance.
"""

from __future__ import annotations

import weakref
from typing import Any

REDUCE, REPLICATE = "__reduce_ex__", "_replicate_for_data_parallel"


class StockCopies:
    """Stands in for an instance's `__reduce_ex__`."""

    def __init__(self, owner: Any) -> None:
        """Leave nothing out yet. `left_out` are names, each with what of ours is there and what was before or null."""
        self._owner = weakref.ref(owner)
        self.left_out: dict[str, tuple[Any, Any]] = {}

    def __call__(self, protocol: Any) -> Any:
        """How a copy is made."""
        owner = self._owner()
        kind: Any = type(owner)
        reduced = kind.__reduce_ex__(owner, protocol)
        if isinstance(reduced, tuple) and len(reduced) > 2 and isinstance(reduced[2], dict):
            return (*reduced[:2], self.without_ours(reduced[2]), *reduced[3:])
        return reduced

    def without_ours(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """The attributes of the instance, or of a copy, as they are without us."""
        stock = {name: value for name, value in attributes.items() if value is not self}
        for name, (ours, before) in self.left_out.items():
            if stock.get(name) is ours:
                del stock[name]
                if before is not None:
                    stock[name] = before
        return stock

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._owner(), REDUCE)


class StockReplicas:
    """Stands in for a module's `_replicate_for_data_parallel`."""

    def __init__(self, module: Any, copies: StockCopies) -> None:
        """Leave out of replicas what is left out of `copies`."""
        self._module = weakref.ref(module)
        self._copies = copies

    def __call__(self) -> Any:
        """A replica, which runs itself."""
        module: Any = self._module()
        replica = type(module)._replicate_for_data_parallel(module)
        replica.__dict__ = self._copies.without_ours(vars(replica))
        return replica

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._module(), REPLICATE)


def leave_out_of_copies(owner: Any, name: str, ours: Any, before: Any = None) -> None:
    """Where `owner` has `ours` under `name`, have its copies get `before`; null: nothing."""
    attributes = vars(owner)
    if REDUCE not in attributes:
        attributes[REDUCE] = StockCopies(owner)
    copies = attributes[REDUCE]
    if not isinstance(copies, StockCopies):
        return
    copies.left_out[name] = ours, before
    if hasattr(type(owner), REPLICATE) and REPLICATE not in attributes:
        attributes[REPLICATE] = replicas = StockReplicas(owner, copies)
        copies.left_out[REPLICATE] = replicas, None


def leave_out_no_longer(owner: Any, name: str) -> None:
    """`owner` has nothing of ours under `name` any more."""
    attributes = vars(owner)
    copies = attributes.get(REDUCE)
    if isinstance(copies, StockCopies):
        copies.left_out.pop(name, None)
        if copies.left_out.keys() <= {REPLICATE}:
            for key in (REDUCE, *copies.left_out):
                del attributes[key]
