"""The aggregator as a process of its own: real sockets, real signals, real kills."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import psutil
import pytest
from own_time import own_seconds_until_gone
from telemetry_factory import make_batch, make_finish, make_hello, make_step_row
from waiting import LIMIT_S, wait_for

from traceml_core.aggregator.owner_watch import OwnerWatch, read_line
from traceml_core.core.process_birth import birth_of
from traceml_core.core.run_folder import RunFolder, create_run_folder
from traceml_core.core.settings import resolve_settings
from traceml_core.history.reader import HistoryReader
from traceml_core.reporting.summary import FinalSummary, decode_summary
from traceml_core.runtime.lifecycle import start_aggregator
from traceml_core.telemetry.messages import Ack, Report, Welcome
from traceml_core.transport.client import TelemetryClient

ROOT = str(Path(__file__).parents[2])


class Run:
    """A run whose owner is the test: an aggregator, and the connection of rank 0."""

    def __init__(self, runs_dir: Path) -> None:
        settings = resolve_settings(runs_dir=str(runs_dir), name="test")
        folder = create_run_folder(settings)
        assert folder is not None
        self.folder: RunFolder = folder
        self.aggregator = start_aggregator(folder, settings)
        self.client = TelemetryClient(self.aggregator.ticket)

    def ask(self, message):
        assert self.client.send(message)
        answer = self.client.receive(int(LIMIT_S * 1000))
        assert answer is not None
        return answer

    def store(self, seq: int, steps: Sequence[int] = ()) -> Ack:
        """Have a batch stored; what the aggregator says to that, with or without a live verdict."""
        ack = self.ask(make_batch(seq, [make_step_row(step) for step in steps]))
        assert isinstance(ack, Ack) and ack.seq == seq
        return ack

    def close(self) -> None:
        self.client.close()
        self.aggregator.stop()


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "runs")
    yield run
    run.close()


def final_summary(folder: Path) -> FinalSummary:
    return decode_summary((folder / "final_summary.json").read_bytes())


def wait_until_gone(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(LIMIT_S)


def test_a_run_is_served_from_hello_to_report_and_the_process_ends(run):
    assert run.ask(make_hello()).watermark == 0
    run.store(1, range(1, 101))
    report = run.ask(make_finish())
    assert isinstance(report, Report)
    assert report.verdict is not None
    run.aggregator.stop()
    wait_until_gone(run.aggregator.pid)
    summary = final_summary(run.folder.path)
    assert (summary.run.status, summary.run.steps) == ("completed", 100)
    assert summary.telemetry.report_s is not None
    assert run.folder.final_summary_text.read_text()
    assert not run.folder.live_summary.exists()
    assert run.folder.errors_log.read_text() == ""


def test_while_the_run_goes_on_there_is_a_live_summary_and_its_verdict_rides_on_an_ack(run):
    run.ask(make_hello())
    run.store(1, range(1, 101))
    seqs, kinds = count(2), set()

    def live_of_all_steps() -> FinalSummary | None:
        if verdict := run.store(next(seqs)).verdict:
            kinds.add(verdict.kind)
        path = run.folder.live_summary
        live = decode_summary(path.read_bytes()) if path.exists() else None
        return live if live is not None and live.run.steps == 100 else None

    live = wait_for(live_of_all_steps)
    assert live.run.status == "running"
    wait_for(lambda: live.primary_diagnosis.kind in kinds or live_of_all_steps() is None)
    assert live.primary_diagnosis.kind in kinds


def test_a_killed_aggregator_is_continued_by_its_successor(run):
    first = run.ask(make_hello())
    run.store(1, [1])
    os.kill(run.aggregator.pid, signal.SIGKILL)
    wait_for(lambda: not run.aggregator._process.is_running())
    run.aggregator.keep_running()
    second = run.ask(make_hello())
    assert isinstance(second, Welcome)
    assert second.aggregator != first.aggregator
    assert second.watermark == 1
    run.store(2, [2])
    run.ask(make_finish())
    assert final_summary(run.folder.path).run.steps == 2


def test_sigterm_leaves_an_interrupted_report_and_ctrl_c_nothing(run):
    run.ask(make_hello())
    os.kill(run.aggregator.pid, signal.SIGINT)
    run.store(1, [1])
    os.kill(run.aggregator.pid, signal.SIGTERM)
    assert run.aggregator._process.wait(LIMIT_S)
    assert final_summary(run.folder.path).run.status == "interrupted"


def test_a_folder_that_is_deleted_under_it_ends_in_a_sentence(run):
    run.ask(make_hello())
    shutil.rmtree(run.folder.path)
    run.store(1, [1])
    report = run.ask(make_finish())
    assert str(run.folder.path) in report.card
    assert report.card.startswith("TraceML: the report could not be built")
    run.aggregator.stop()
    wait_until_gone(run.aggregator.pid)


OWNER = """
import os, sys, time
sys.path[:0] = sys.argv[1:3]
from telemetry_factory import make_batch, make_hello, make_step_row
from test_aggregator_process import Run
run = Run(__import__("pathlib").Path(sys.argv[3]))
run.ask(make_hello())
if os.fork() == 0:
    time.sleep(600)
    os._exit(0)
run.ask(make_batch(1, [make_step_row(step) for step in range(1, 51)]))
print(run.aggregator.pid, run.folder.path, flush=True)
time.sleep(600)
"""


def test_a_killed_owner_leaves_an_interrupted_report_within_seconds_also_while_its_forked_child_sleeps(tmp_path):
    command = [sys.executable, "-c", OWNER, ROOT, str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as owner:
        pid, _, folder = owner.stdout.readline().strip().partition(" ")
        children = psutil.Process(owner.pid).children()
        aggregator = psutil.Process(int(pid))
        owner.kill()
        spent_s = own_seconds_until_gone(aggregator, LIMIT_S)
        for child in children:
            if child.is_running():
                child.kill()
    assert spent_s < 8
    summary = final_summary(Path(folder))
    assert (summary.run.status, summary.run.steps) == ("interrupted", 50)
    with HistoryReader(Path(folder) / "telemetry.sqlite") as reader:
        assert len(reader.columns("step_time")["step"]) == 50


def test_the_service_loads_neither_numpy_nor_torch_nor_rich():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import traceml_core.aggregator.service,"
        "traceml_core.runtime.sampler_registry, traceml_core.transport.server;"
        "print([name for name in ('numpy', 'torch', 'rich', 'asyncio', 'lightning') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-I", "-c", code, ROOT], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_an_owner_that_says_nothing_or_half_a_line_is_given_up():
    read_end, write_end = os.pipe()
    with pytest.raises(EOFError, match="did not say"):
        read_line(read_end, timeout_s=0.01)
    os.write(write_end, b"half a li")
    os.close(write_end)
    with pytest.raises(EOFError, match="was gone"):
        read_line(read_end)
    os.close(read_end)


@pytest.mark.parametrize("descriptors", [True, False])
def test_an_owner_is_gone_when_its_process_has_ended_though_the_pipe_is_open(monkeypatch, descriptors):
    if not descriptors:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        monkeypatch.setattr("traceml_core.aggregator.owner_watch.POLL_INTERVAL_S", 0.0)
    read_end, write_end = os.pipe()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
        watch = OwnerWatch(read_end, owner.pid, birth_of(owner.pid))
        assert not watch.is_gone()
        owner.kill()
    assert watch.is_gone()
    os.close(read_end)
    os.close(write_end)


def test_a_later_process_with_the_owners_number_is_not_the_owner(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    monkeypatch.setattr("traceml_core.aggregator.owner_watch.POLL_INTERVAL_S", 0.0)
    read_end, write_end = os.pipe()
    assert OwnerWatch(read_end, os.getpid(), "another boot/12345").is_gone()
    os.close(read_end)
    os.close(write_end)
