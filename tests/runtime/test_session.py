"""A session as an adapter uses it: opened, measured, finished, closed; and what happens where something cannot."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import time
import weakref

import pytest
from own_time import Beats
from session_runs import FACTS, aggregator_of, lines, train
from session_scripts import summary_in
from waiting import LIMIT_S, wait_for

from traceml_core.core.settings import resolve_settings
from traceml_core.runtime import lifecycle, live_session, rendezvous, run_opening, spawn
from traceml_core.runtime.session import Session, open_session
from traceml_core.telemetry.facts import LoaderFacts, RunFacts
from traceml_core.transport.listener import open_listener


def test_a_run_ends_with_a_verdict_a_card_and_its_files(open_run, capfd):
    session = open_run()
    aggregator = aggregator_of(session)
    train(session, 50)
    verdict = session.finish()
    session.close()
    assert verdict is not None and verdict.metrics["traceml/forward_ms"] > 0
    out, err = capfd.readouterr()
    assert out == ""
    assert lines(err)[0] == f"TraceML: recording to runs/{session.folder.name}"
    assert "Where the time went" in err
    summary = summary_in(session.folder)
    assert (summary.run.status, summary.run.steps, summary.telemetry.rows_lost) == ("completed", 50, 0)
    assert summary.telemetry.failures == {} and summary.telemetry.overhead_us_per_step > 0
    left = {path.name for path in session.folder.iterdir()}
    assert {"manifest.json", "telemetry.sqlite", "final_summary.json", "final_summary.txt"} <= left
    aggregator.wait(LIMIT_S)
    wait_for(lambda: not aggregator.is_running())
    wait_for(lambda: not {"traceml-sender", "traceml-reaper"} & {thread.name for thread in threading.enumerate()})


def test_finish_and_close_count_once(open_run, capfd):
    session = open_run()
    train(session, 3)
    assert session.finish("failed", ValueError("first")) == session.finish("completed")
    session.close("completed")
    session.close("failed")
    assert summary_in(session.folder).run.error.message == "first"
    assert capfd.readouterr().err.count("Where the time went") == 1


def test_an_error_is_recorded_where_it_happened_or_by_its_type_alone(open_run):
    for record_errors, message in ((True, "boom"), (False, None)):
        session = open_run(record_errors=record_errors)
        session.steps.start_at(100)
        train(session, 3)
        session.close("failed", RuntimeError("boom"))
        run = summary_in(session.folder).run
        assert (run.status, run.error.type, run.error.message) == ("failed", "RuntimeError", message)
        # The third step is still open when the error comes, and its optimizer has stepped.
        assert (run.error.step, run.error.global_step) == (3, 103)


class Unspeakable(Exception):
    """An error whose own text fails."""

    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(("error", "message"), [(Unspeakable(), None), (OSError("no file \udcff"), "no file \\udcff")])
def test_an_error_without_readable_words_fails_its_run_all_the_same(open_run, error, message):
    session = open_run()
    train(session, 2)
    session.close("failed", error)
    run = summary_in(session.folder).run
    assert (run.status, run.error.type, run.error.message) == ("failed", type(error).__name__, message)


def test_what_is_described_late_is_in_the_report_as_plain_values(open_run):
    class Version(str):
        pass

    session = open_run(RunFacts(framework="manual", device="cpu", versions={"torch": Version("2.13")}))
    train(session, 2)
    session.describe(batch_size=8, loader=LoaderFacts(num_workers=2))
    session.describe(no_such_fact=1, precision="bf16")
    session.close()
    run = summary_in(session.folder).run
    assert (run.versions, run.batch_size, run.loader.num_workers) == ({"torch": "2.13"}, 8, 2)


def test_a_session_that_is_off_measures_and_leaves_nothing_behind(open_run, tmp_path, capfd):
    session = open_run(enabled=False)
    train(session, 3)
    session.describe(batch_size=1)
    assert (session.enabled, session.finish(), session.live_verdict()) == (False, None, None)
    session.close()
    assert session.steps.steps_done == 2 and not session.steps.queue
    assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())


def test_report_off_prints_nothing_and_writes_everything(open_run, capfd):
    session = open_run(report="off")
    train(session, 3)
    session.close()
    assert capfd.readouterr() == ("", "")
    assert summary_in(session.folder).run.steps == 3


def test_further_runs_of_a_process_print_one_line_at_the_end(open_run, capfd):
    open_run().close()
    capfd.readouterr()
    session = open_run()
    train(session, 3)
    session.close()
    said = lines(capfd.readouterr().err)
    assert len(said) == 2 and said[1].endswith(str(session.folder))


def test_a_second_session_joins_the_first_and_leaves_it_running(open_run, tmp_path):
    first = open_run()
    second = open_run()
    train(second, 4)
    assert second.finish("failed") is None
    second.close("failed")
    train(first, 4)
    first.close()
    assert len(list((tmp_path / "runs").glob("2*"))) == 1
    assert (summary_in(first.folder).run.status, summary_in(first.folder).run.steps) == ("completed", 8)


def test_a_finished_run_that_nobody_closed_does_not_take_the_next_one_in(open_run):
    first = open_run()
    train(first, 3)
    first.finish("failed")
    second = open_run()
    assert first._runtime.is_stopped
    train(second, 5)
    second.close()
    assert [summary_in(one.folder).run.steps for one in (first, second)] == [3, 5]


def test_a_run_that_begins_while_another_thread_waits_for_a_report_is_a_run_of_its_own(open_run, monkeypatch):
    first = open_run()
    train(first, 3)
    waits, goes_on, wait = threading.Event(), threading.Event(), first._runtime.wait

    def wait_longer(timeout_s):
        waits.set()
        return goes_on.wait(LIMIT_S) and wait(timeout_s)

    monkeypatch.setattr(first._runtime, "wait", wait_longer)
    ending = threading.Thread(target=first.close)
    ending.start()
    assert waits.wait(LIMIT_S)
    second = open_run()
    train(second, 5)
    goes_on.set()
    ending.join()
    second.close()
    assert [summary_in(one.folder).run.steps for one in (first, second)] == [3, 5]


def test_runs_that_follow_each_other_may_have_one_port(open_run):
    with open_listener() as listener:
        port = listener.getsockname()[1]
    for _ in range(4):
        session = open_run(port=port)
        assert session.enabled
        train(session, 2)
        session.close()


def test_a_copy_of_a_session_is_off(open_run):
    session = open_run()
    for copied in (copy.deepcopy(session), pickle.loads(pickle.dumps(session))):
        assert type(copied) is Session and not copied.enabled
        copied.close()
    train(session, 2)
    session.close()
    assert summary_in(session.folder).run.steps == 2


def test_what_must_be_undone_is_undone_before_the_run_ends(open_run):
    session = open_run()
    ended: list[int] = []
    session.on_end = lambda: ended.append(session.steps.steps_done)
    train(session, 3)
    session.finish()
    session.close()
    assert ended == [2]


def test_a_run_that_is_over_holds_neither_what_it_measured_nor_itself(tmp_path):
    class Model:
        pass

    model = Model()
    session = open_session(resolve_settings({}, runs_dir=str(tmp_path), report="off"), FACTS)
    session.on_end = lambda held=model: None
    train(session, 3)
    session.close()
    gone = weakref.ref(model), weakref.ref(session), weakref.ref(session._runtime)
    del model
    gc.collect()
    assert gone[0]() is None  # while its adapter still has the session
    del session
    gc.collect()
    assert [one() for one in gone] == [None, None, None]


class FakeStore(dict):
    def check(self, keys):
        return all(key in self for key in keys)

    def set(self, key, value):
        self[key] = value.encode()

    def get(self, key):
        return self[key]


def test_a_rank_without_a_run_to_join_says_one_line_and_trains_on(open_run, monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(rendezvous, "FETCH_LIMIT_S", 0.2)
    session = open_run(identity=live_session.RankIdentity(rank=1, world_size=2), store=FakeStore())
    train(session, 5)
    wait_for(lambda: session._runtime.has_ticket is False)
    with Beats() as beats:
        assert session.finish() is None
        session.close()
    assert beats.seconds < 0.5
    (said,) = lines(capfd.readouterr().err)
    assert said.startswith("TraceML: rank 1 found no run to join")
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def owned_elsewhere(tmp_path, patient):
    """A run whose aggregator no session owns: its folder and handle."""
    folder = run_opening.claim_run_folder(resolve_settings({}, runs_dir=str(tmp_path / "runs")))
    handle = lifecycle.start_aggregator(folder, resolve_settings({}))
    yield folder, handle
    handle.stop()


def test_a_rank_of_a_run_that_another_process_owns_reports_nothing_and_leaves_it_running(owned_elsewhere, capfd):
    folder, aggregator = owned_elsewhere
    for rank in (1, 0):  # rank 0 is one of many here
        session = open_session(
            resolve_settings({}),
            FACTS,
            live_session.RankIdentity(rank=rank, world_size=2),
            find_ticket=lambda stopped: aggregator.ticket,
        )
        train(session, 5)
        assert session.finish() is None and session.folder is None
        session.close()
    assert aggregator._process.is_running() and not folder.final_summary_json.exists()
    assert capfd.readouterr().err == ""
    aggregator.stop()
    wait_for(folder.final_summary_json.exists)
    summary = summary_in(folder.path)
    assert (summary.run.status, summary.run.steps, summary.run.world_size) == ("completed", 5, 2)
    assert summary.telemetry.rows_lost == 0


def test_a_rank_that_finds_no_run_of_another_process_trains_on(open_run):
    session = open_session(resolve_settings({}), FACTS, find_ticket=lambda stopped: None)
    train(session, 5)
    session.close()
    assert not session.is_open


def test_a_session_that_joins_tells_what_the_first_does_not_know(open_run):
    first = open_run(RunFacts(framework="ray", versions={"ray": "2"}, unmeasured=("forward", "grad_sync")))
    joined = open_run(
        RunFacts(framework="lightning", versions={"torch": "2.13"}, device="cpu", unmeasured=("grad_sync", "h2d"))
    )
    joined.close()
    assert first.is_open
    facts = first._facts
    assert (facts.framework, facts.device, facts.unmeasured) == ("ray", "cpu", ("grad_sync",))
    assert facts.versions == {"ray": "2", "torch": "2.13"}


def test_where_rank_0_cannot_record_it_says_so_for_all_ranks(open_run, monkeypatch, capfd):
    store = FakeStore()
    monkeypatch.setattr(spawn.sys, "executable", "/no/such/python")
    open_run(store=store, identity=live_session.RankIdentity(rank=0, world_size=2))
    monkeypatch.setattr(live_session, "_JOB", rendezvous.Rendezvous())  # another process
    other = open_run(store=store, identity=live_session.RankIdentity(rank=1, world_size=2))
    wait_for(lambda: other._runtime.has_ticket is False)
    other.close()
    (said,) = lines(capfd.readouterr().err)
    assert "recording process cannot be started" in said


def test_opening_is_quick(open_run):
    spent_s = []
    for _ in range(3):
        began_s = time.thread_time()
        session = open_run(report="off")
        spent_s.append(time.thread_time() - began_s)
        session.close()
    assert min(spent_s) < 0.15  # what it costs is what it takes where nobody disturbs it
