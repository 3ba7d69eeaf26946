"""What the owner of a run tells its aggregator at birth, over a pipe: the only place where the run's keys travel."""

from __future__ import annotations

import msgspec


class AggregatorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an aggregator needs to serve one run. Keys are Z85 text.

    `dashboard`: the descriptor of the dashboard's listening socket, and its token.
    """

    run_id: str
    folder: str
    server_public: str
    server_secret: str
    client_public: str
    owner_pid: int
    owner_birth: str | None
    mode: str
    keep_raw_steps: int
    html: bool = False
    dashboard: tuple[int, str] | None = None

    def __repr__(self) -> str:
        """Without the keys: tracebacks that show local variables end in logs."""
        return f"AggregatorConfig(run_id={self.run_id!r}, folder={self.folder!r}, …)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """Without the keys."""
        return [("run_id", self.run_id), ("folder", self.folder)]
