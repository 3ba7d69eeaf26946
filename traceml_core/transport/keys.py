"""The keys of one run, and the ticket that lets a rank in."""

from __future__ import annotations

import msgspec
import zmq


class RunKeys(msgspec.Struct, frozen=True):
    """Two CURVE key pairs made for one run, as Z85 text. They live in memory; no file ever holds them."""

    server_public: str
    server_secret: str
    client_public: str
    client_secret: str

    def __repr__(self) -> str:
        """Without the keys: tracebacks that show local variables end in logs."""
        return "RunKeys(…)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """Nor in rich's tracebacks."""
        return []


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank needs to join a run. Whoever holds it is trusted by the run."""

    endpoint: str
    run_id: str
    server_public: str
    client_public: str
    client_secret: str

    def __repr__(self) -> str:
        """Without the keys."""
        return f"Ticket(endpoint={self.endpoint!r}, run_id={self.run_id!r}, …)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """Without the keys."""
        return [("endpoint", self.endpoint), ("run_id", self.run_id)]


def make_keys() -> RunKeys:
    """Fresh key pairs for one run."""
    server_public, server_secret = zmq.curve_keypair()
    client_public, client_secret = zmq.curve_keypair()
    return RunKeys(*(key.decode() for key in (server_public, server_secret, client_public, client_secret)))


def ticket_for(keys: RunKeys, endpoint: str, run_id: str) -> Ticket:
    """The ticket of a run that listens at `endpoint`, such as `tcp://127.0.0.1:40123`."""
    return Ticket(
        endpoint=endpoint,
        run_id=run_id,
        server_public=keys.server_public,
        client_public=keys.client_public,
        client_secret=keys.client_secret,
    )
