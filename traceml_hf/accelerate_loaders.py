"""The proxy in a prepared loader's place for its `base_dataloader`: it tells when batches are asked for and awaited.

An Accelerate loader keeps the user's `DataLoader` in the instance attribute `base_dataloader` and iterates that, so a
stand-in sees every fetch. Two moments lie outside it: when the loop asks for its next batch, and the copy to the
device that comes before the fetch. `DataLoaderShard.__iter__` reads its own attribute `device` at exactly that moment;
while a run is open the proxy holds that attribute, and the shard's `__getattr__` asks the proxy for what it lacks.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from threading import get_ident
from types import CodeType
from typing import Any, Protocol

from traceml_core.core.phases import H2D, INPUT_WAIT, Phase
from traceml_core.instrumentation.batch_size import size_of
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_hf.loader_role import LoaderRole

MISSING: Any = object()
_OURS = ("__getstate__", "_update_state_dict")


class LoaderListener(Protocol):
    """Who is told what the loop over a proxied loader does, on the thread of number `thread`, while `is_open`."""

    clock: PhaseClock
    is_open: bool
    thread: int

    def listens(self) -> bool:
        """Whether what the calling thread does now counts."""
        ...

    def fetch(self, role: LoaderRole) -> None:
        """The loop asks for a batch."""
        ...

    def loop_begins(self, role: LoaderRole) -> None:
        """An iteration begins: workers start, if there are any."""
        ...

    def loop_begun(self, role: LoaderRole) -> None:
        """The iterator exists, and where there are workers the first batch too."""
        ...

    def loop_closes(self, role: LoaderRole) -> None:
        """The iteration is over, and its workers are about to be shut down."""
        ...

    def loop_ends(self, role: LoaderRole) -> None:
        """The workers are gone."""
        ...


class _Proxied:
    """What one proxy stands in for, and where the loop over it is.

    `device` is held for the shard with these `attributes`, whose loop runs `loop_code`; elsewhere it is missing.
    """

    __slots__ = (
        "attributes",
        "base",
        "device",
        "loop_code",
        "opening",
        "reads_ahead",
        "resumed",
        "role",
        "tracker",
    )

    def __init__(self, base: Any, tracker: LoaderListener, role: LoaderRole, attributes: dict[str, Any]) -> None:
        self.base = base
        self.tracker = tracker
        self.role = role
        self.attributes = attributes
        self.device: Any = MISSING
        self.loop_code: CodeType | None = None
        self.reads_ahead = False
        self.opening = False  # in the first fetch of an iteration, which reads two batches
        self.resumed = False  # between the loop's asking for a batch and the next read from the base


class LoaderProxy:
    """Stands in for the loader `base`; whatever it does not know is the base's. A copy of it is a copy of the base."""

    _proxied: _Proxied

    def __init__(self, proxied: _Proxied) -> None:
        """Tell the tracker of each iteration over the base."""
        object.__setattr__(self, "_proxied", proxied)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._proxied.base)

    @property
    def device(self) -> Any:
        """What the shard lacks while this holds it; else the base's own.

        Called by the shard's `__getattr__`, called in turn by whoever reads `shard.device`: its loop does when it has
        been asked for a batch and is about to move it to the device. It will read `device` once more.
        """
        proxied = self._proxied
        device, tracker = proxied.device, proxied.tracker
        if device is MISSING:
            return proxied.base.device
        reader = sys._getframe(1).f_back
        if reader is None or reader.f_code is not proxied.loop_code:
            return device
        if tracker.is_open and get_ident() == tracker.thread:
            proxied.resumed = True
            proxied.attributes["device"] = device
            if proxied.opening:
                proxied.opening = False
            else:
                tracker.fetch(proxied.role)
            clock = tracker.clock
            clock.note((H2D, clock.now()))
        return device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._proxied.base, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._proxied.base, name, value)

    def __len__(self) -> int:
        return len(self._proxied.base)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self._proxied.base,)

    def __iter__(self) -> Iterator[Any]:
        proxied = self._proxied
        tracker, role = proxied.tracker, proxied.role
        if not tracker.listens():
            return iter(proxied.base)
        if proxied.resumed:  # an exception ended the last iteration during its copy to the device
            proxied.resumed = False
            proxied.attributes.pop("device", None)
            tracker.clock.leave(H2D)
        proxied.opening = proxied.reads_ahead
        tracker.loop_begins(role)
        try:
            return _Batches(iter(proxied.base), proxied, tracker, role)
        finally:
            if not role.workers:
                tracker.loop_begun(role)


class _Batches:
    """One iteration over a proxied loader. That it is dropped says that the loop over it has ended."""

    __slots__ = ("_ahead", "_batches", "_loop", "_proxied", "_role", "_started", "_tracker")

    def __init__(self, batches: Iterator[Any], proxied: _Proxied, tracker: LoaderListener, role: LoaderRole) -> None:
        self._batches: Iterator[Any] | None = batches
        self._proxied = proxied
        self._tracker = tracker
        self._role = role
        self._loop = role.loops
        self._started = False
        self._ahead: tuple[int | None, int | None] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        batches, tracker, role = self._batches, self._tracker, self._role
        if batches is None:
            raise StopIteration
        proxied, clock = self._proxied, tracker.clock
        waiting = INPUT_WAIT
        if proxied.resumed:
            proxied.resumed = False
            proxied.attributes.pop("device", None)
            waiting = H2D  # still on the clock's stack: leaving it leaves the wait as well
        elif not tracker.is_open or get_ident() != tracker.thread:
            return next(batches)
        elif proxied.opening:
            proxied.opening = not self._started
        elif self._started:
            tracker.fetch(role)
        if self._ahead is not None:
            role.fresh, role.size = True, self._ahead
        clock.note((INPUT_WAIT, clock.now()))
        try:
            batch = next(batches)
        except StopIteration:
            if role.workers and clock.owner is Phase.INPUT_WAIT:
                clock.book(Phase.LOADER_START)  # there was nothing left to wait for: the workers were shut down
            raise
        finally:
            clock.note((~waiting, clock.now()))
            if not self._started:
                self._started = True
                tracker.loop_begun(role)
        size = size_of(batch)
        if proxied.reads_ahead:
            self._ahead = size
        else:
            role.fresh, role.size = True, size
        return batch

    def __del__(self) -> None:
        tracker = self._tracker
        if tracker.listens() and self._role.loops == self._loop:
            tracker.loop_closes(self._role)
            self._batches = None
            tracker.loop_ends(self._role)


def install(loader: Any, tracker: LoaderListener) -> LoaderRole | None:
    """Put a proxy into a prepared loader.

    Returns null where there is nothing to see: a loader of another kind, one that has a proxy, and one whose batches
    are fetched by rank 0 alone.
    """
    from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard

    attributes = vars(loader)
    base = attributes.get("base_dataloader")
    kind = type(loader)
    if base is None or type(base) is LoaderProxy:
        return None
    if issubclass(kind, DataLoaderDispatcher) and loader.state.process_index != 0:
        return None
    role = LoaderRole(getattr(base, "num_workers", 0) or 0)
    proxied = _Proxied(base, tracker, role, attributes)
    proxied.reads_ahead = issubclass(kind, (DataLoaderShard, DataLoaderDispatcher))
    if issubclass(kind, DataLoaderShard) and "device" in attributes:
        proxied.loop_code = DataLoaderShard.__iter__.__code__
        proxied.device = attributes.pop("device")
    attributes["base_dataloader"] = LoaderProxy(proxied)
    if not hasattr(base, "state_dict"):
        # Asked at every batch, and answered by the absence of that method: a proxy makes the question expensive.
        attributes["_update_state_dict"] = bool  # does nothing, and sooner than a function of ours
    attributes["__getstate__"] = functools.partial(_state_of, attributes)
    return role


def remove(loader: Any) -> None:
    """Give a prepared loader back what `install` took; does nothing where somebody replaced the proxy."""
    attributes = vars(loader)
    if type(attributes.get("base_dataloader")) is LoaderProxy:
        attributes.update(_state_of(attributes))
        for name in _OURS:
            attributes.pop(name, None)


def _state_of(attributes: dict[str, Any]) -> dict[str, Any]:
    """A prepared loader's attributes as they are without us: what a copy of it is made of."""
    state = {name: value for name, value in attributes.items() if name not in _OURS}
    proxied = state["base_dataloader"]._proxied
    state["base_dataloader"] = proxied.base
    if proxied.device is not MISSING:
        state.setdefault("device", proxied.device)
    return state


def _itself(base: Any) -> Any:
    return base
