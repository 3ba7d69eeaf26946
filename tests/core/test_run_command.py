"""`traceml run`: the command is as it would be without it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys

import pytest

TRACEML = [sys.executable, "-m", "traceml_core"]
ECHO = """
import os, sys
print(os.getpid(), os.getcwd(), sys.argv[1:], sys.executable)
print(sys.stdin.read(), end="")
print("to stderr", file=sys.stderr)
sys.exit(7)
"""


def start(*words: str, **options) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*TRACEML, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_it_becomes_the_command_with_its_streams_folder_arguments_and_exit_code(tmp_path):
    (tmp_path / "echo.py").write_text(ECHO)
    process = start("run", "echo.py", "--lr", "1", "--", "--name", "x", cwd=tmp_path)
    out, err = process.communicate(b"caf\xc3\xa9\x00\n")

    arguments = ["--lr", "1", "--", "--name", "x"]
    assert out.splitlines()[0].decode() == f"{process.pid} {tmp_path} {arguments} {sys.executable}"
    assert out.endswith(b"\ncaf\xc3\xa9\x00\n")
    assert err == b"to stderr\n"
    assert process.returncode == 7


def test_options_become_variables_and_everything_else_stays(tmp_path):
    code = "import os; print(*[f'{name}={value}' for name, value in sorted(os.environ.items()) if 'TRACEML' in name])"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRACEML_")}
    options = ("--name", "a b", "--runs-dir", "r", "--mode", "cli", "--report", "off")
    process = start("run", *options, "--", sys.executable, "-c", code, env={**kept, "TRACEML_LABELS": "k=v"})
    out, _ = process.communicate()

    said = "TRACEML_ATTACH=1 TRACEML_LABELS=k=v TRACEML_MODE=cli TRACEML_NAME=a b TRACEML_REPORT=off TRACEML_RUNS_DIR=r"
    assert out.decode().strip() == said


IS_CLOSED = """
import os, pathlib
closed = []
for number in range(3):
    try:
        os.fstat(number)
    except OSError:
        closed.append(number)
pathlib.Path("closed").write_text(repr(closed))
"""


@pytest.mark.parametrize("verb", ["run", "watch"])
def test_streams_that_are_closed_are_closed_for_the_command_too(tmp_path, verb):
    (tmp_path / "look.py").write_text(IS_CLOSED)
    words = shlex.join([*TRACEML, verb, "look.py"])
    done = subprocess.run(f"{words} <&- >&-", shell=True, cwd=tmp_path)

    assert done.returncode == 0
    assert (tmp_path / "closed").read_text() == "[0, 1]"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGPIPE])
def test_a_signal_meets_the_command_itself(number):
    process = start("run", "sh", "-c", "echo ready; exec sleep 600")
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.wait() == -number
    process.communicate()


@pytest.mark.parametrize("verb", ["run", "watch"])
@pytest.mark.parametrize(("word", "code"), [("no-such-command", 127), ("./folder", 126)])
def test_a_command_that_cannot_be_started_is_one_line_and_leaves_nothing(tmp_path, verb, word, code):
    (tmp_path / "folder").mkdir()
    process = start(verb, word, cwd=tmp_path)
    out, err = process.communicate()

    assert process.returncode == code
    assert out == b""
    assert err.startswith(f"traceml: {word} cannot be started".encode())
    assert err.count(b"\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("verb", ["run", "watch"])
@pytest.mark.parametrize("words", [(), ("--nmae", "x", "true")])
def test_what_is_no_command_is_a_usage_error(verb, words):
    process = start(verb, *words)
    process.communicate()
    assert process.returncode == 2
