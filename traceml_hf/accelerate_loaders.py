"""The proxy in a prepared loader's place for its `base_dataloader`: it tells when batches are asked for and awaited.

An Accelerate loader keeps the user's `DataLoader` in the instance attribute `base_dataloader` and iterates that, so a
stand-in sees every fetch. Two moments lie outside it: when the loop asks for its next batch, and the copy to the
device, with which a `DataLoaderShard` answers before it fetches the batch after. So while a run is open such a shard is
of a kind derived from its own, whose iterations tell when they go on.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from threading import get_ident
from typing import Any, Protocol

from traceml_core.core.phases import H2D, INPUT_WAIT, Phase
from traceml_core.instrumentation.batch_size import BatchSizes
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_hf.loader_role import LoaderRole

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
    """What one proxy stands in for, and where the loop over it is."""

    __slots__ = ("base", "copies", "ended", "opening", "reads_ahead", "role", "tells", "tracker")

    def __init__(self, base: Any, tracker: LoaderListener, role: LoaderRole) -> None:
        self.base = base
        self.tracker = tracker
        self.role = role
        self.reads_ahead = False
        self.tells = False  # when the loop goes on: a watched shard does
        self.opening = False  # in the first fetch of an iteration, which reads two batches
        self.copies = False  # between a shard's going on and its next read from the base
        self.ended = False  # the base has no more batches


class LoaderProxy:
    """Stands in for the loader `base`; whatever it does not know is the base's. A copy of it is a copy of the base."""

    _proxied: _Proxied

    def __init__(self, proxied: _Proxied) -> None:
        """Tell the tracker of each iteration over the base."""
        object.__setattr__(self, "_proxied", proxied)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._proxied.base)

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
        if proxied.copies:  # an exception ended the last iteration during its copy to the device
            proxied.copies = False
            tracker.clock.leave(H2D)
        proxied.opening, proxied.ended = proxied.reads_ahead, False
        tracker.loop_begins(role)
        try:
            return _Batches(iter(proxied.base), proxied, tracker, role)
        finally:
            if not role.workers:
                tracker.loop_begun(role)


class _Batches:
    """One iteration over a proxied loader. That it is dropped says that the loop over it has ended."""

    __slots__ = ("_ahead", "_batches", "_loop", "_proxied", "_role", "_size_of", "_started", "_tracker")

    def __init__(self, batches: Iterator[Any], proxied: _Proxied, tracker: LoaderListener, role: LoaderRole) -> None:
        self._batches: Iterator[Any] | None = batches
        self._proxied = proxied
        self._tracker = tracker
        self._role = role
        self._loop = role.loops
        self._size_of = BatchSizes().of
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
        if proxied.copies:
            proxied.copies = False
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
            proxied.ended = True
            if role.workers and clock.owner is Phase.INPUT_WAIT:
                clock.book(Phase.LOADER_START)  # there was nothing left to wait for: the workers were shut down
            raise
        finally:
            clock.note((~waiting, clock.now()))
            if not self._started:
                self._started = True
                tracker.loop_begun(role)
        if proxied.opening and proxied.tells:  # a shard copies the first batch before it reads the second
            proxied.opening, proxied.copies = False, True
            clock.note((H2D, clock.now()))
        size = self._size_of(batch)
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


class _WatchedShard:
    """What a prepared loader is first while a run is open, and then what it was: it tells when its loop goes on."""

    def __iter__(self) -> Iterator[Any]:
        batches: Iterator[Any] = super().__iter__()  # type: ignore[misc]
        base = vars(self).get("base_dataloader")
        return _shard_loop(batches, base._proxied) if type(base) is LoaderProxy else batches


def _shard_loop(batches: Iterator[Any], proxied: _Proxied) -> Iterator[Any]:
    """One iteration over a watched shard, which copies the batch that it is asked for, then reads the next."""
    tracker = proxied.tracker
    clock, role = tracker.clock, proxied.role
    for batch in batches:
        yield batch
        if not proxied.ended and tracker.is_open and get_ident() == tracker.thread:
            tracker.fetch(role)
            proxied.copies = True
            clock.note((H2D, clock.now()))


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
    proxied = _Proxied(base, tracker, role)
    proxied.reads_ahead = issubclass(kind, (DataLoaderShard, DataLoaderDispatcher))
    proxied.tells = getattr(kind, "__iter__", None) is DataLoaderShard.__iter__
    if proxied.tells:
        _change_kind(loader, type(kind.__name__, (_WatchedShard, kind), {"__module__": kind.__module__}))
    attributes["base_dataloader"] = LoaderProxy(proxied)
    if not hasattr(base, "state_dict"):
        # Asked at every batch, and answered by the absence of that method: a proxy makes the question expensive.
        attributes["_update_state_dict"] = bool  # does nothing, and sooner than a function of ours
    attributes["__getstate__"] = functools.partial(_state_of, attributes)
    return role


def remove(loader: Any) -> None:
    """Give a prepared loader back what `install` took; does nothing where somebody replaced the proxy."""
    attributes = vars(loader)
    if issubclass(type(loader), _WatchedShard):
        _change_kind(loader, type(loader).__bases__[1])
    if type(attributes.get("base_dataloader")) is LoaderProxy:
        attributes.update(_state_of(attributes))
        for name in _OURS:
            attributes.pop(name, None)


def _state_of(attributes: dict[str, Any]) -> dict[str, Any]:
    """A prepared loader's attributes as they are without us: what a copy of it is made of."""
    state = {name: value for name, value in attributes.items() if name not in _OURS}
    state["base_dataloader"] = state["base_dataloader"]._proxied.base
    return state


def _change_kind(loader: Any, kind: type) -> None:
    """Make `loader` one of this kind. A prepared loader's `__class__` is a property that names its base's."""
    object.__dict__["__class__"].__set__(loader, kind)


def _itself(base: Any) -> Any:
    return base
