"""A run that cannot be read gives one clear line from every verb that takes one, and nothing in it is changed.

The verbs are those of the command itself: a later one is tested as soon as it is there.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from damage import HALF_READABLE, UNREADABLE, a_table_damaged_beside_its_summary, damage_table
from run_factory import make_run_folder, rolled_up_early
from summary_factory import make_summary

from traceml_core.cli import main
from traceml_core.reporting import followed_run
from traceml_core.reporting.loaded_run import load_run
from traceml_core.reporting.stored_summary import SummaryUnavailableError
from traceml_core.reporting.summary import encode_summary

# What a verb takes that is no run: the command to start.
NO_RUN = frozenset(("command",))


def runs_taken(command):
    """How many runs to give to a command."""
    arguments = [one for one in command.params if isinstance(one, click.Argument) and one.name not in NO_RUN]
    return sum(2 if one.nargs == -1 else one.nargs for one in arguments)


# What shows a run until it is told to end; what it makes of a run in parts is in tests/display.
GOES_ON = frozenset(("dashboard",))
VERBS = [name for name, command in sorted(main.commands.items()) if runs_taken(command) and name not in GOES_ON]
FORMS = [
    *((verb,) for verb in VERBS),
    ("report", "--rebuild"),
    ("report", "--format", "json"),
    ("export", "--format", "csv"),
]


def contents(folder):
    """Every file and what it holds; the log of failures may grow."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.name != "errors.log" and not path.name.startswith("telemetry.sqlite-")
    }


def invoke(form, damaged):
    verb, *options = form
    runs = [str(damaged)] * runs_taken(main.commands[verb])
    return CliRunner().invoke(main, [verb, *runs, *options])


def assert_one_line(result):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("traceml: ")
    assert result.stderr.count("\n") == 1
    assert "; " in result.stderr or ". " in result.stderr, "what is true, then what to do"


@pytest.fixture(autouse=True)
def _no_report_is_on_its_way(monkeypatch):
    """`live` waits for the report of a run that has just been killed; here nobody writes one."""
    monkeypatch.setattr(followed_run, "REPORT_GRACE_S", 0.0)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes the damage, with whatever the verb may write elsewhere."""
    monkeypatch.chdir(tmp_path)
    return lambda damage: damage(tmp_path / "runs")


@pytest.mark.parametrize("damage", UNREADABLE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_what_cannot_be_read_is_said_in_one_line_and_left_as_it_is(form, damage, made, tmp_path):
    damaged = made(damage)
    before = contents(tmp_path)
    assert_one_line(invoke(form, damaged))

    assert contents(tmp_path) == before


@pytest.mark.parametrize("damage", UNREADABLE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("verb", sorted(GOES_ON))
def test_what_cannot_be_read_is_not_served(verb, damage, made, tmp_path):
    damaged = made(damage)
    before = contents(tmp_path)
    assert_one_line(invoke((verb,), damaged))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("damage", HALF_READABLE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_what_can_be_read_in_part_is_told_or_said_in_one_line(form, damage, made, tmp_path):
    damaged = made(damage)
    before = contents(damaged)
    result = invoke(form, damaged)
    if result.exit_code == 0:
        assert result.stdout
    else:
        assert_one_line(result)
    if "--rebuild" in form and result.exit_code == 0:
        return  # it was asked for a new report, and had all that it takes
    assert contents(damaged) == before


@pytest.mark.parametrize("damage", [*UNREADABLE, *HALF_READABLE], ids=lambda damage: damage.__name__)
def test_the_list_has_one_line_for_each_folder_of_a_run(damage, made, tmp_path):
    damaged = made(damage)
    result = CliRunner().invoke(main, ["list", "--runs-dir", str(tmp_path / "runs")])

    assert result.exit_code == 0
    assert result.stderr == ""
    named = [line for line in result.stdout.splitlines() if line.startswith(damaged.name)]
    is_run = damaged.is_dir() and any(damaged.iterdir()) and not (damaged / "model.pt").exists()
    assert len(named) == is_run


def test_a_damaged_account_is_no_interrupted_run(made, tmp_path):
    made(HALF_READABLE[0])
    made(HALF_READABLE[1])
    lines = CliRunner().invoke(main, ["list", "--runs-dir", str(tmp_path / "runs")]).stdout.splitlines()

    assert "newer" in lines[1].split()
    assert "damaged" in lines[2].split()


def test_a_damaged_history_never_replaces_its_report(made):
    damaged = made(HALF_READABLE[3])
    before = (damaged / "final_summary.json").read_bytes()
    result = invoke(("report", "--rebuild"), damaged)

    assert_one_line(result)
    assert (damaged / "final_summary.json").read_bytes() == before


def test_one_damaged_table_is_enough_to_keep_the_report(made):
    damaged = made(a_table_damaged_beside_its_summary)
    before = contents(damaged)
    result = invoke(("report", "--rebuild"), damaged)

    assert_one_line(result)
    assert "would say less" in result.stderr
    assert contents(damaged) == before


def test_of_a_killed_run_with_a_damaged_table_what_was_last_seen_stays_and_the_report_says_where_it_failed(tmp_path):
    folder = damage_table(make_run_folder(tmp_path, steps=200, status=None), "step_time")
    (folder / "live_summary.json").write_bytes(encode_summary(make_summary(status="running", steps=150)))
    before = contents(folder)
    result = invoke(("report",), folder)

    said = " ".join(result.stdout.split())
    assert result.exit_code == 0
    assert "[NO DATA] The section step time could not be built." in said
    assert "building the section step_time 1x" in said
    assert "[TraceML] building the section step_time failed" in (folder / "errors.log").read_text()
    assert contents(folder) == before


def test_a_newer_report_is_not_replaced_by_one_of_this_version(made):
    damaged = made(HALF_READABLE[1])
    result = invoke(("report", "--rebuild"), damaged)

    assert_one_line(result)
    assert "written by a newer TraceML and left as it is" in result.stderr
    assert "2.0" in (damaged / "final_summary.json").read_text()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_a_history_with_garbled_bytes_is_told_or_said_in_one_line(form, seed, garbled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(form, garbled(seed))
    if result.exit_code == 0:
        assert result.stdout
    else:
        assert_one_line(result)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of which some steps were rolled up, and which has no report yet."""
    with rolled_up_early(detail=64, kept=200):
        return make_run_folder(tmp_path_factory.mktemp("whole"), steps=600, ranks=2)


@pytest.fixture
def garbled(whole, tmp_path):
    """Makes a copy of it in which a few bytes anywhere are others."""

    def make(seed):
        folder = shutil.copytree(whole, tmp_path / "runs" / whole.name)
        path, dice = folder / "telemetry.sqlite", random.Random(seed)
        data = bytearray(path.read_bytes())
        for _ in range(dice.choice((1, 3, 20, 200))):
            place, length = dice.randrange(100, len(data) - 200), dice.choice((1, 8, 200))
            data[place : place + length] = dice.randbytes(length)
        path.write_bytes(data)
        return folder

    return make


@contextmanager
def somebody_else():
    """Permissions mean nothing to root, so the block is left to another user."""
    is_root = os.geteuid() == 0
    if is_root:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if is_root:
            os.setresuid(0, 0, 0)


@pytest.fixture
def shared():
    """A runs folder that everybody may enter, with one reported run."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = make_run_folder(Path(name), steps=20)
        assert invoke(("report",), folder).exit_code == 0
        yield folder


def test_a_folder_that_may_not_be_entered_is_passed_over_by_the_list_and_said_where_it_is_named(shared):
    locked = shared.parent / "lost+found"
    locked.mkdir()
    locked.chmod(0)
    with somebody_else():
        listed = CliRunner().invoke(main, ["list", "--runs-dir", str(shared.parent)])
        named = invoke(("report",), locked)
    locked.chmod(0o755)

    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["RUN", shared.name]
    assert_one_line(named)
    assert "may not be read" in named.stderr


def test_a_report_that_may_not_be_read_is_said_and_stays(shared):
    (shared / "final_summary.json").chmod(0)
    with somebody_else():
        result = invoke(("report", "--rebuild"), shared)

    assert_one_line(result)
    assert "is left as it is" in result.stderr


@pytest.mark.parametrize("damage", UNREADABLE, ids=lambda damage: damage.__name__)
def test_load_run_says_it_too(damage, made):
    with pytest.raises((LookupError, SummaryUnavailableError)):
        load_run(made(damage))
