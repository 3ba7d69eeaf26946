"""What the owner of a run tells its aggregator at birth, over a pipe: the only place where the run's keys travel."""

from __future__ import annotations

import msgspec


class AggregatorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an aggregator needs to serve one run. Keys are Z85 text; times Unix seconds.

    `module_paths` are the directories of this package and its dependencies, searched after Python's own.
    """

    run_id: str
    folder: str
    server_public: str
    server_secret: str
    client_public: str
    owner_pid: int
    owner_created: float
    profile: str
    mode: str
    keep_raw_steps: int
