"""The command line as a whole: its table of contents, its examples, its errors, and pipes that close early."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from run_factory import make_run_folder

from traceml_core.cli import COMMANDS, main

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
VERBS = sorted(main.commands)


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], terminal_width=80)


def test_help_is_a_table_of_contents_on_one_screen():
    lines = invoke("--help").stdout.splitlines()

    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.endswith("...") and not line.startswith("Usage")]
    for heading, command in COMMANDS:
        assert f"{heading}:" in lines
        assert any(line.split()[:1] == [command.name] for line in lines)


def test_the_command_alone_shows_its_help():
    result = invoke()

    assert (result.exit_code, result.stdout) == (0, invoke("--help").stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb):
    result = invoke(verb, "--help")

    assert result.exit_code == 0
    assert f"traceml {verb}" in result.stdout.partition("Example")[2]


@pytest.mark.parametrize("verb", VERBS)
def test_the_page_of_the_command_line_has_every_verb(verb):
    assert f"`traceml {verb}" in PAGE.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("repotr",), "there is no command 'repotr'; did you mean `traceml report`?"),
        (("zzz",), "there is no command 'zzz'; `traceml` lists them all"),
        (("report", "--fomat"), "--format"),
        (("report", "--format", "yaml"), "'yaml' is not one of 'text', 'json'"),
        (("clean",), "missing option '--keep'; see `traceml clean --help`"),
        (("list", "--runs-dir"), "option '--runs-dir' requires an argument; see `traceml list --help`"),
        (("report", "one", "two"), "got unexpected extra argument (two); see `traceml report --help`"),
        (("--nonsense",), "see `traceml --help`"),
    ],
)
def test_an_error_of_usage_is_one_line_with_a_remedy(arguments, said):
    result = invoke(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("traceml: ")
    assert said in result.stderr


@pytest.mark.parametrize("arguments", [("list",), ("--help",)])
def test_a_reader_that_has_read_enough_ends_the_command_quietly(arguments, tmp_path):
    command = [sys.executable, "-m", "traceml_core", *arguments]
    listing = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    listing.stdout.close()
    said = listing.stderr.read()
    listing.stderr.close()

    assert listing.wait() == 141
    assert said == b""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_no_error(closed, tmp_path):
    make_run_folder(tmp_path / "traceml_runs", steps=3)
    for verb, code in (("list", 0), ("report", 0), ("clean --keep 0", 2)):
        command = f"{shlex.quote(sys.executable)} -m traceml_core {verb} {closed}"
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)

        assert done.returncode == code
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_letters_that_stdout_lacks_are_question_marks(encoding, tmp_path):
    make_run_folder(tmp_path / "traceml_runs", steps=3, name="\u03c0", status=None)
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200"}
    for verb in ("list", "report", "clean --keep 0 --yes"):
        command = [sys.executable, "-m", "traceml_core", *verb.split()]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)

        assert done.returncode == 0, done.stderr
        assert done.stdout.decode(encoding)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
@pytest.mark.parametrize("arguments", [("list",), ("--help",)])
def test_output_for_which_there_is_no_room_is_one_line(arguments, tmp_path):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "traceml_core", *arguments]
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)

    assert done.returncode == 2
    assert done.stderr == "traceml: the output cannot be written (No space left on device); free some room first\n"
