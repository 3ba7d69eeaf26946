"""A real run among strangers: all of them at once, while it records; then its report."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest
from faults import make_place, ticket_of
from simulated_run import SimulatedRun, check
from strangers import (
    address_of,
    announce_four_gib,
    connect,
    dawdle,
    send_with_a_wrong_key,
    send_without_a_key,
    speak_for_another_rank,
    speak_nonsense,
    speak_random_bytes,
)
from waiting import wait_for

from traceml_core.reporting.summary import FinalSummary
from traceml_core.transport.keys import Ticket

IDLE = 500
MIB = 2**20


class Siege(msgspec.Struct):
    """What became of it."""

    summary: FinalSummary
    said: str
    listens_at: set[str]
    address: str
    grown_bytes: int
    was_cut: bool


@pytest.fixture
def siege(tmp_path) -> Siege:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 4_096, hard))
    run = SimulatedRun(make_place(tmp_path / "run"), ranks=2)
    try:
        run.start(0)
        ticket = wait_for(lambda: ticket_of(run))
        run.wait_for_rows(0)
        return besiege(run, ticket)
    finally:
        run.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def besiege(run: SimulatedRun, ticket: Ticket) -> Siege:
    aggregator = run.aggregator()
    wait_for((run.folder / "live_summary.json").exists)  # what a report needs is loaded, and is no stranger's doing
    before = aggregator.memory_info().rss
    listens_at = {c.laddr.ip for c in aggregator.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    cut: list[bool] = []
    dawdler = threading.Thread(target=lambda: cut.append(dawdle(ticket)))
    dawdler.start()
    held = [connect(ticket) for _ in range(IDLE)]
    held += [speak_random_bytes(ticket) for _ in range(3)] + [announce_four_gib(ticket)]
    strangers: tuple[Callable[[Ticket], object], ...]
    strangers = (send_without_a_key, send_with_a_wrong_key, speak_for_another_rank, speak_nonsense)
    for stranger in strangers:
        stranger(ticket)
    run.wait_for_rows(0, more=5)
    dawdler.join()
    run.wait_for_rows(0, more=5)
    grown = aggregator.memory_info().rss - before
    for connection in held:
        connection.close()
    run.end()
    summary, _ = check(run)
    return Siege(summary, run.said_by(0), listens_at, address_of(ticket)[0], grown, cut[0])


def test_a_run_among_strangers_refuses_and_counts_them_all_and_records_on(siege):
    telemetry = siege.summary.telemetry
    assert (siege.summary.run.status, telemetry.rows_lost) == ("completed", 0)
    assert siege.address == "127.0.0.1" and siege.listens_at == {"127.0.0.1"}
    # 500 idle ones, three with random bytes, one with 4 GiB, one without a key, and the one who dawdles.
    assert telemetry.failures["refused.no handshake"] == IDLE + 6
    assert siege.was_cut
    assert telemetry.failures["refused.wrong key"] == 1
    assert telemetry.failures["refused.rows for another rank"] == 1
    assert telemetry.failures["refused.malformed"] == 4
    assert siege.grown_bytes < 64 * MIB
    assert "Where the time went" in siege.said and "Refused at the run's port" in siege.said


def test_no_key_is_in_any_argument_environment_file_or_output(tmp_path):
    run = SimulatedRun(make_place(tmp_path / "run"))
    try:
        run.start_all()
        run.aggregator().kill()
        for rank in range(2):
            run.wait_for_rows(rank, more=3)
        ticket = ticket_of(run)
        keys = [getattr(ticket, name).encode() for name in ("server_public", "client_public", "client_secret")]
        seen = [*processes(), *(path.read_bytes() for path in run.folder.rglob("*") if path.is_file())]
        run.end()
        seen += [path.read_bytes() for path in run.folder.rglob("*") if path.is_file()]
        seen += [run.said_by(rank).encode() for rank in range(2)]
    finally:
        run.close()
    assert len(seen) > 10
    assert not [place for place in seen for key in keys if key in place]


def processes() -> list[bytes]:
    """The arguments and the environment of every process of this machine that may be looked at."""
    found = []
    for process in psutil.process_iter():
        for name in ("cmdline", "environ"):
            try:
                found.append(Path(f"/proc/{process.pid}/{name}").read_bytes())
            except OSError:
                continue
    return found
