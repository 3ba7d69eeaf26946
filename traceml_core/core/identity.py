"""Who a telemetry row comes from: one training process of one run."""

from __future__ import annotations

import os
import secrets
import socket

import msgspec

from traceml_core.core.integers import Count, Integer


class RankIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """One training process, as its framework names it.

    `rank` is the *global* rank. `incarnation` is 64 random bits (signed, as SQLite stores them), drawn anew at every
    runtime start, so that a rank that was restarted is told from its predecessor.
    """

    rank: Count = 0
    local_rank: Integer = 0
    world_size: Count = 1
    nodes: Count = 1
    host: str = msgspec.field(default_factory=socket.gethostname)
    pid: Integer = msgspec.field(default_factory=os.getpid)
    incarnation: Integer = msgspec.field(default_factory=lambda: secrets.randbits(64) - 2**63)
