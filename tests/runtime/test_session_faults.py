"""A session whose aggregator dies, hangs or cannot start, whose folder cannot be written, and that a stranger calls."""

from __future__ import annotations

import tempfile

import patience
from kept_asleep import kept_asleep
from knocking import knock
from own_time import Beats
from session_runs import aggregator_of, lines, train
from session_scripts import steps_in, summary_in
from telemetry_factory import make_batch, make_hello, make_step_row
from waiting import wait_for

from traceml_core.runtime import lifecycle, live_session, run_opening, spawn
from traceml_core.transport.keys import make_keys


def test_a_killed_aggregator_is_started_again_and_nothing_is_lost(open_run, capfd):
    session = open_run()
    train(session, 100)
    wait_for(lambda: steps_in(session.folder))
    for _ in range(2):
        killed = aggregator_of(session)
        killed.kill()
        wait_for(lambda killed=killed: session._aggregator.pid not in (None, killed.pid))
        train(session, 100)
    assert session.finish() is not None
    session.close()
    summary = summary_in(session.folder)
    assert (summary.run.steps, summary.telemetry.rows_lost, summary.run.status) == (300, 0, "completed")
    assert steps_in(session.folder) == 300
    assert "TraceML:" in lines(capfd.readouterr().err)[0]


def test_an_aggregator_that_dies_while_the_report_is_asked_for_is_started_again(open_run, monkeypatch):
    session = open_run()
    train(session, 20)
    wait_for(lambda: steps_in(session.folder))
    aggregator = aggregator_of(session)
    aggregator.suspend()
    train(session, 20)
    real_finish = session._runtime.finish

    def finish_then_kill(message):
        real_finish(message)
        aggregator.kill()

    monkeypatch.setattr(session._runtime, "finish", finish_then_kill)
    assert session.finish() is not None
    session.close()
    assert (summary_in(session.folder).run.steps, summary_in(session.folder).run.status) == (40, "completed")


def test_an_aggregator_that_was_stopped_is_woken_for_the_report(open_run):
    session = open_run()
    train(session, 5)
    wait_for(lambda: steps_in(session.folder) == 4)  # the last one ends with the run
    aggregator_of(session).suspend()
    assert session.finish() is not None
    session.close()
    assert (summary_in(session.folder).run.steps, summary_in(session.folder).run.status) == (5, "completed")


def test_an_aggregator_that_hangs_holds_up_the_end_for_less_than_five_seconds(open_run, monkeypatch, capfd):
    patience.wait_as_users_do(monkeypatch.setattr)
    session = open_run()
    train(session, 5)
    wait_for(lambda: steps_in(session.folder) == 4)
    aggregator = aggregator_of(session)
    with kept_asleep(aggregator):
        with Beats() as beats:
            session.close()
        assert beats.seconds < 5.0
    said = lines(capfd.readouterr().err)
    assert f"`traceml report runs/{session.folder.name}` makes it" in said[-1] and len(said) == 3
    wait_for(lambda: not aggregator.is_running())
    assert summary_in(session.folder).run.steps >= 4  # the last one was in its way when its rank went


def test_an_aggregator_that_cannot_run_is_one_line_and_training_goes_on(open_run, monkeypatch, capfd):
    monkeypatch.setattr(spawn, "CODE", "raise SystemExit('broken')")
    session = open_run(report="off")
    wait_for(lambda: session._aggregator.has_given_up)
    train(session, 5)
    with Beats() as beats:
        assert session.finish() is None
        session.close()
    assert beats.seconds < 1.0
    (said,) = lines(capfd.readouterr().err)
    assert said.startswith("TraceML: its recording process ended 6 times") and "errors.log" in said
    errors = (session.folder / "errors.log").read_text()
    assert "broken" in errors and "exit status 1" in errors


def test_an_interpreter_that_is_not_there_is_one_line_and_training_goes_on(open_run, monkeypatch, capfd):
    monkeypatch.setattr(spawn.sys, "executable", "/no/such/python")
    session = open_run()
    train(session, 5)
    session.close()
    (said,) = lines(capfd.readouterr().err)
    assert said == ("TraceML: nothing is recorded: its recording process cannot be started (No such file or directory)")
    assert not session.enabled


def test_a_port_that_is_taken_is_one_line_and_training_goes_on(open_run, capfd):
    with lifecycle.open_listener() as taken:
        port = taken.getsockname()[1]
        assert not open_run(port=port).enabled
    (said,) = lines(capfd.readouterr().err)
    assert said == f"TraceML: nothing is recorded: port {port} cannot be had (Address already in use)"


def test_a_thread_that_cannot_be_started_is_one_line_and_leaves_nobody_behind(open_run, monkeypatch, capfd):
    started = []
    real_start = live_session.start_aggregator
    monkeypatch.setattr(
        live_session, "start_aggregator", lambda *a, **o: started.append(real_start(*a, **o)) or started[0]
    )

    def no_thread(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(lifecycle.Sender, "start", no_thread)
    assert not open_run(report="off").enabled
    assert lines(capfd.readouterr().err) == ["TraceML: nothing is recorded: RuntimeError: can't start new thread"]
    wait_for(lambda: not started[0]._process.is_running())


def test_a_folder_that_cannot_be_written_is_said_once_and_recorded_elsewhere(open_run, tmp_path, monkeypatch, capfd):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    session = open_run(runs_dir="file/runs")
    train(session, 5)
    session.close()
    err = capfd.readouterr().err
    assert "cannot be written" in lines(err)[0] and str(session.folder) in lines(err)[0]
    assert err.count("cannot be written") == 1 and "Where the time went" in err
    assert summary_in(session.folder).run.steps == 5


def test_where_nothing_can_be_written_one_line_says_so_and_training_goes_on(open_run, monkeypatch, capfd):
    monkeypatch.setattr(run_opening, "create_run_folder", lambda settings: None)
    session = open_run()
    train(session, 5)
    session.close()
    (said,) = lines(capfd.readouterr().err)
    assert said == "TraceML: nothing is recorded: neither the run folder nor the temporary folder can be written"


def test_a_stranger_adds_nothing_to_a_run_and_is_counted(open_run):
    session = open_run()
    words = make_hello(rank=5), make_batch(1, [make_step_row(99)], rank=5)
    assert not knock(session._aggregator.ticket, make_keys(), *words)
    train(session, 5)
    session.close()
    summary = summary_in(session.folder)
    assert (summary.run.steps, steps_in(session.folder)) == (5, 5)
    assert summary.telemetry.failures.keys() == {"refused.wrong key"}
