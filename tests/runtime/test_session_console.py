"""What stderr is taken for: a terminal with its width and colour, a file, or nothing at all."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest
from session_runs import train
from session_scripts import summary_in

from traceml_core.core.phases import Phase
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_core.runtime.console import Terminal, say, say_in_passing, show, shown, terminal
from traceml_core.runtime.overhead import overhead_ns_per_step


@pytest.fixture
def tty(monkeypatch):
    """A terminal of 132 columns. A test makes it stderr itself: pytest sets its own between fixture and test."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 132, 0, 0))
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        yield stream
    os.close(master)


def test_a_terminal_has_its_width_and_colour(tty, monkeypatch):
    monkeypatch.setattr(sys, "stderr", tty)
    assert terminal() == Terminal(132, True)


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_person_who_wants_no_colour_gets_none(tty, monkeypatch, name, value):
    monkeypatch.setattr(sys, "stderr", tty)
    monkeypatch.setenv(name, value)
    assert terminal() == Terminal(132, False)


def test_a_terminal_that_cannot_show_symbols_is_plain(tty, monkeypatch):
    monkeypatch.setattr(sys, "stderr", tty)
    tty.reconfigure(encoding="ascii")
    assert terminal() == Terminal(132, False)


def test_a_file_is_80_columns_of_plain_text(tmp_path, monkeypatch):
    with (tmp_path / "log").open("w") as log:
        monkeypatch.setattr(sys, "stderr", log)
        assert terminal() == Terminal(80, False)


def test_without_a_stderr_nothing_is_said_and_stdout_stays_empty(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    say("nobody hears this")
    assert terminal() == Terminal(80, False)
    assert capsys.readouterr().out == ""


class BrokenPipe(io.StringIO):
    """A stream whose reader has gone."""

    def flush(self):
        raise BrokenPipeError


def closed_stream():
    stream = io.StringIO()
    stream.close()
    return stream


class Tee:
    """What scripts put in the place of stderr: it can write, and nothing else."""

    def __init__(self):
        self.texts = []

    def write(self, text):
        self.texts.append(text)


class Refusing:
    """One that raises whatever is asked of it."""

    def __getattr__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize("bars", [None, SimpleNamespace(tqdm=SimpleNamespace(_instances=[1]))])
def test_a_stand_in_for_stderr_that_can_only_write_is_written_to(monkeypatch, bars):
    tee = Tee()
    monkeypatch.setattr(sys, "stderr", tee)
    monkeypatch.setitem(sys.modules, "tqdm.std", bars)
    say("recording")
    say_in_passing("on a terminal alone")
    assert (tee.texts, terminal()) == (["TraceML: recording\n"], Terminal(80, False))


@pytest.mark.parametrize("make", [closed_stream, BrokenPipe, Tee, Refusing])
def test_a_stderr_that_takes_nothing_any_more_stops_nobody(open_run, monkeypatch, make):
    monkeypatch.setattr(sys, "stderr", make())
    session = open_run()
    train(session, 3)
    session.close()
    assert summary_in(session.folder).run.steps == 3


def test_a_text_ends_in_one_newline(capsys):
    show("card\n")
    show("card")
    assert capsys.readouterr().err == "card\ncard\n"


def test_a_path_in_the_working_directory_is_shown_as_a_person_would_type_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "runs" / "a") == "runs/a"
    assert shown(Path("/elsewhere/a")) == "/elsewhere/a"


def test_overhead_is_what_the_boundaries_of_a_step_cost():
    clock = PhaseClock()
    steps = StepRecorder(clock)
    steps.fetch()
    assert overhead_ns_per_step(clock, steps) == 0.0
    for _ in range(10):
        for _ in range(10):
            clock.enter(Phase.FORWARD)
            clock.leave(Phase.FORWARD)
        steps.optimizer_step()
        steps.fetch()
    # Twenty-six boundaries of a step cost something between nanoseconds and a hundred microseconds each.
    assert 26 * 50 < overhead_ns_per_step(clock, steps) < 26 * 100_000
