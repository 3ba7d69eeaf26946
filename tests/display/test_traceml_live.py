"""`traceml live` in a real terminal: what it shows, how it follows the run, and how it leaves the terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import msgspec
import psutil
import pytest
from pseudo_terminal import ALTERNATE_SCREEN, PseudoTerminal, traceml
from run_factory import make_run_folder
from summary_factory import make_issue, make_summary
from waiting import wait_for

from traceml_core.core.atomic_files import write_atomic
from traceml_core.reporting.summary import FinalSummary, encode_summary

SIZES = [(80, 24), (120, 40)]


def running(**fields) -> FinalSummary:
    return make_summary(status="running", **fields)


@pytest.fixture
def folder(tmp_path):
    """A run that goes on: this process owns it."""
    return make_run_folder(tmp_path / "runs", owner_lives=True, history=False)


def put(folder, summary, name="live_summary.json"):
    write_atomic(folder / name, encode_summary(summary), synced=False)


def end(folder, summary):
    """What an aggregator does at the end."""
    put(folder, summary, "final_summary.json")
    (folder / "live_summary.json").unlink()


@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_the_screen_shows_verdict_phases_sections_and_health(folder, columns, lines):
    put(folder, running())
    with PseudoTerminal(traceml("live", folder), columns, lines) as terminal:
        screen = terminal.wait_for_text("q or Ctrl-C leaves")
        rows = [row.rstrip() for row in screen.splitlines()]

    assert "INPUT BOUND" in screen
    for words in ("Next", "waiting for data", "Step ", "Memory", "Host", "Health   1,234 rows", "live"):
        assert words in screen
    assert len(rows) == lines
    assert rows[0].startswith(" TraceML  train-digits")
    assert rows[-1].startswith(" q or Ctrl-C leaves")


@pytest.mark.parametrize(("columns", "lines"), SIZES)
@pytest.mark.parametrize(("ended_by", "code"), [("ctrl-c", 130), ("SIGTERM", 143), ("q", 0)])
def test_the_terminal_is_left_as_it_was(folder, columns, lines, ended_by, code):
    put(folder, running())
    with PseudoTerminal(traceml("live", folder), columns, lines) as terminal:
        terminal.wait_for_text("q or Ctrl-C leaves")
        if ended_by == "SIGTERM":
            terminal.process.send_signal(signal.SIGTERM)
        else:
            terminal.type(b"\x03" if ended_by == "ctrl-c" else b"q")
        assert terminal.wait_for_end() == code
        terminal.assert_left_as_it_was()
        assert b"Traceback" not in terminal.output


def test_the_shell_has_its_terminal_while_the_view_is_suspended_and_then_the_view_is_back(folder):
    put(folder, running())
    with PseudoTerminal(traceml("live", folder), 80, 24) as terminal:
        process = psutil.Process(terminal.process.pid)
        terminal.wait_for_text("INPUT BOUND")
        terminal.process.send_signal(signal.SIGTSTP)
        wait_for(lambda: process.status() == psutil.STATUS_STOPPED)
        terminal.read()
        terminal.assert_left_as_it_was()
        terminal.process.send_signal(signal.SIGCONT)
        wait_for(lambda: terminal.read() and terminal.output.count(ALTERNATE_SCREEN[0]) == 2)
        terminal.type(b"q")
        assert terminal.wait_for_end() == 0
        terminal.assert_left_as_it_was()


def test_it_waits_for_the_first_numbers_follows_them_and_ends_with_the_report(folder):
    with PseudoTerminal(traceml("live", folder), 80, 24) as terminal:
        terminal.wait_for_text("Waiting for the first numbers")
        put(folder, running())
        terminal.wait_for_text("INPUT BOUND")
        put(folder, running(primary=make_issue("STRAGGLER", summary="Rank 3 is late.")))
        terminal.wait_for_text("STRAGGLER")
        end(folder, make_summary(primary=make_issue("LOADER_RESTART", summary="Workers start anew.")))
        assert terminal.wait_for_end() == 0
        terminal.assert_left_as_it_was()
        assert "Files" in terminal.read()
        assert b"LOADER RESTART" in terminal.output


def test_a_rank_each_has_a_line_where_there_is_room(folder):
    summary = running(world_size=3)
    ranks = [{"rank": rank, "metrics": {"step_time_ms": 20.0 + rank, "forward_ms": 3.0}} for rank in range(3)]
    tree = msgspec.to_builtins(summary)
    tree["sections"]["step_time"]["ranks"] = ranks
    put(folder, msgspec.convert(tree, FinalSummary))
    with PseudoTerminal(traceml("live", folder), 120, 40) as terminal:
        screen = terminal.wait_for_text("Rank ")

    rows = [row.split() for row in screen.splitlines()]
    assert ["2", "22.0", "ms", "–", "–", "3.00", "ms", "–", "–", "–"] in rows


def test_without_colour_the_same_is_said(folder):
    put(folder, running())
    with PseudoTerminal(traceml("live", folder), 80, 24, NO_COLOR="1") as terminal:
        screen = terminal.wait_for_text("q or Ctrl-C leaves")

    assert "[INPUT BOUND]  critical" in screen
    assert b"\x1b[3" not in terminal.output
    assert b"\x1b[4" not in terminal.output


def test_a_terminal_without_symbols_is_given_none(folder):
    put(folder, running())
    with PseudoTerminal(traceml("live", folder), 80, 24, PYTHONUTF8="0", PYTHONIOENCODING="ascii") as terminal:
        terminal.wait_for_text("q or Ctrl-C leaves")

    assert terminal.output.isascii()


def test_a_name_that_the_terminal_cannot_show_is_no_error(tmp_path):
    folder = make_run_folder(tmp_path, owner_lives=True, history=False)
    put(folder, running(name="\u03c0\u03c0\u03c0"))
    with PseudoTerminal(traceml("live", folder), 80, 24, PYTHONUTF8="0", PYTHONIOENCODING="ascii") as terminal:
        terminal.wait_for_text("???")
        terminal.type(b"q")
        assert terminal.wait_for_end() == 0


def test_a_dumb_terminal_gets_lines_and_no_control_characters(folder):
    put(folder, running())
    with PseudoTerminal(traceml("live", folder), 80, 24, TERM="dumb") as terminal:
        terminal.wait_for_text("INPUT BOUND")
        end(folder, make_summary())
        assert terminal.wait_for_end() == 0

    assert b"\x1b" not in terminal.output


def test_where_stdout_is_no_terminal_a_finished_run_is_its_report(folder, tmp_path):
    put(folder, make_summary(), "final_summary.json")
    done = subprocess.run(traceml("live", folder), capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith(" TraceML  train-digits")


def test_a_run_whose_process_and_recorder_were_killed_is_told_from_its_history_and_nothing_is_written(tmp_path):
    folder = make_run_folder(tmp_path / "runs", steps=50, status=None)
    put(folder, running())
    long_ago_s = time.time() - 60
    os.utime(folder / "telemetry.sqlite", (long_ago_s, long_ago_s))
    before = sorted(path.name for path in folder.iterdir())
    done = subprocess.run(traceml("live", folder), capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert "Interrupted after step 50" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("data", [b"", b"{", b'{"schema_version": "9.0"}', b"[]"])
def test_a_summary_that_cannot_be_read_is_one_line_and_exit_2(folder, data):
    (folder / "live_summary.json").write_bytes(data)
    done = subprocess.run(traceml("live", folder), capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_summary_that_breaks_while_it_is_shown_leaves_the_terminal_as_it_was(folder):
    put(folder, running())
    with PseudoTerminal(traceml("live", folder), 80, 24) as terminal:
        terminal.wait_for_text("INPUT BOUND")
        write_atomic(folder / "live_summary.json", b"{", synced=False)
        assert terminal.wait_for_end() == 2
        terminal.assert_left_as_it_was()
        assert "traceml: " in terminal.read()
