"""Mode `cli`: when a line is due, and that it tears no progress bar."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pseudo_terminal import PseudoTerminal
from run_factory import make_run_folder
from summary_factory import make_issue, make_summary

from traceml_core.aggregator.display_drivers.cli import FIRST_LINE_S, OTHER_VERDICT_S, SAME_VERDICT_S, CliDriver
from traceml_core.aggregator.display_drivers.selection import driver_for
from traceml_core.core.run_folder import open_run_folder
from traceml_core.renderers.compact import compact_line
from traceml_core.reporting.summary import decode_summary

# A bar as frameworks draw it, and a line said from another thread in the middle of it, several times.
TQDM = """
import sys, threading, time
from tqdm.auto import tqdm
from traceml_core.runtime.console import say_in_passing
for step in tqdm(range(120), file=sys.{stream}, ncols=70, mininterval=0):
    time.sleep(0.01)
    if step % 30 == 15:
        threading.Thread(target=say_in_passing, args=(f"line at {{step}} " + 100 * "x",)).start()
time.sleep(0.1)
"""
RICH = """
import threading, time
from rich.progress import Progress
from traceml_core.runtime.console import say_in_passing
with Progress() as progress:
    task = progress.add_task("training", total=120)
    for step in range(120):
        time.sleep(0.01)
        progress.update(task, advance=1)
        if step % 30 == 15:
            threading.Thread(target=say_in_passing, args=(f"line at {step} " + 100 * "x",)).start()
    time.sleep(0.1)
"""
TRAINING = """
import time
from tqdm.auto import tqdm
from traceml_core.sdk import trace_run
with trace_run(name="digits", runs_dir="runs", mode="cli") as run:
    for _ in run.batches(tqdm(range(60000), ncols=70)):
        with run.step(), run.phase("forward"):
            time.sleep(0.001)
"""
NO_TERMINAL = "from traceml_core.runtime.console import say_in_passing; say_in_passing('nobody reads this')"


@pytest.fixture
def folder(tmp_path):
    return open_run_folder(make_run_folder(tmp_path, history=False))


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def test_a_line_is_due_after_a_while_then_each_minute_and_soon_where_the_verdict_changes(folder):
    clock = Clock()
    driver = CliDriver(folder, clock)
    first, other = make_summary(status="running"), make_summary(status="running", primary=make_issue("STRAGGLER"))

    def said(after_s, summary):
        clock.now_s += after_s
        return driver.show(summary) is not None

    assert not said(FIRST_LINE_S - 1, first)
    assert said(1, first)
    assert not said(SAME_VERDICT_S - 1, first)
    assert said(1, first)
    assert not said(OTHER_VERDICT_S - 1, other)
    assert said(1, other)


def test_the_live_summary_is_there_in_this_mode_too(folder):
    driver = driver_for("cli", folder)
    summary = make_summary(status="running")
    driver.show(summary)

    assert decode_summary(folder.live_summary.read_bytes()) == summary
    driver.close()
    assert not folder.live_summary.exists()


def test_the_line_says_the_verdict_and_the_main_numbers():
    line = compact_line(make_summary())
    assert (
        line == "INPUT BOUND (up to 61% to gain) | 400 steps in 41.2 s, 24.1 ms a step, 1,328 samples/s, RSS 1.19 GiB"
    )


@pytest.mark.parametrize("script", [TQDM.format(stream="stderr"), TQDM.format(stream="stdout"), RICH])
def test_a_line_stands_by_itself_above_the_progress_bar_which_stays_whole(script):
    with PseudoTerminal([sys.executable, "-c", script], 80, 24) as terminal:
        assert terminal.wait_for_end() == 0
        rows = [row.rstrip() for row in terminal.read().splitlines() if row.strip()]

    assert [row[:19] for row in rows[:4]] == [f"TraceML: line at {step}"[:19] for step in (15, 45, 75, 105)]
    assert all(row.endswith("xxx...") and len(row) < 80 for row in rows[:4])
    assert len(rows) == 5
    assert "100%" in rows[4]


def test_a_training_in_this_mode_says_its_line_in_its_own_terminal(tmp_path):
    with PseudoTerminal([sys.executable, "-c", TRAINING], 120, 24, cwd=tmp_path) as terminal:
        terminal.wait_for_text("TraceML: recording to")
        screen = terminal.wait_for_text(" steps in ")
        terminal.type(b"\x03")
        terminal.wait_for_end()
    (line,) = [row for row in screen.splitlines() if " steps in " in row]
    assert line.startswith("TraceML: ")
    assert " | " in line


def test_what_is_no_terminal_is_told_nothing(capfd):
    subprocess.run([sys.executable, "-c", NO_TERMINAL], check=True)
    assert capfd.readouterr().err == ""
