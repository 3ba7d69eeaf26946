"""Chrome's JSON trace events, which Perfetto reads: slices, counters and names, and the file that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, BinaryIO

import msgspec

# Encoded and written at a time: memory stays bounded however long the run is.
CHUNK_EVENTS = 10_000


class Slice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="ph", tag="X"):
    """A stretch of time on a track (`pid`, `tid`). `ts` and `dur` are microseconds."""

    name: str
    cat: str
    pid: int
    tid: int
    ts: float
    dur: float
    args: dict[str, Any] = {}


class Counter(msgspec.Struct, frozen=True, kw_only=True, tag_field="ph", tag="C"):
    """Values at a moment: each entry of `args` is a counter of its own, of the process `pid`."""

    name: str
    pid: int
    ts: float
    args: dict[str, float]


class Named(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="ph", tag="M"):
    """What a process or a track is called (`name` is `process_name`, `thread_name`), or where it stands."""

    name: str
    pid: int
    args: dict[str, Any]
    tid: int = 0


Event = Slice | Counter | Named


def write_trace_file(file: BinaryIO, events: Iterable[Event], about: dict[str, Any]) -> int:
    """Write a whole trace, `about` being what it says of itself; how many events it has."""
    encode = msgspec.json.encode
    file.write(b'{"displayTimeUnit":"ms","otherData":' + encode(about) + b',"traceEvents":[')
    written = 0
    for chunk in _chunks(events):
        file.write(b",\n" if written else b"\n")
        file.write(b",\n".join(map(encode, chunk)))
        written += len(chunk)
    file.write(b"\n]}\n")
    return written


def _chunks(events: Iterable[Event]) -> Iterator[list[Event]]:
    remaining = iter(events)
    while chunk := list(islice(remaining, CHUNK_EVENTS)):
        yield chunk
