"""`traceml watch`: a command runs as always, and its processes and the machine are reported on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pseudo_terminal import PseudoTerminal, traceml
from session_scripts import environment, run_folder, summary_in
from waiting import wait_for

MIB = 2**20
# Its child holds memory that the command itself does not.
PARENT = """
import subprocess, sys
child = "import time; held = bytearray(150 << 20); print('held', flush=True); time.sleep(1.5)"
print("read", len(sys.stdin.read()), flush=True)
subprocess.run([sys.executable, "-c", child])
sys.exit(3)
"""
# Says how often it was interrupted, and ends by itself.
INTERRUPTED = """
import signal, sys, time
times = []
signal.signal(signal.SIGINT, lambda *_: times.append(1))
print("ready", flush=True)
while not times:
    time.sleep(0.01)
time.sleep(0.5)
print("interrupted", len(times), flush=True)
sys.exit(5)
"""


def start(tmp_path: Path, *words: str, **options) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        traceml("watch", *words),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def test_the_report_is_of_the_whole_tree_and_says_truly_that_no_step_was_seen(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    process = start(tmp_path, "parent.py")
    out, err = process.communicate(b"four")
    summary = summary_in(run_folder(tmp_path))

    assert (process.returncode, out) == (3, b"read 4\nheld\n")
    assert (summary.run.name, summary.run.framework, summary.run.status) == ("parent", "manual", "failed")
    assert summary.run.error is not None
    assert summary.run.error.type == "exit code 3"
    assert summary.sections["process"].metrics["rss_bytes"].max < 100 * MIB
    assert summary.sections["process"].metrics["workers_rss_bytes"].max > 150 * MIB
    assert "host_memory_bytes" in summary.sections["system"].metrics
    assert [summary.sections[name].diagnosis.kind for name in ("step_time", "step_memory")] == ["NO_DATA", "NO_DATA"]
    assert b"Failed with exit code 3." in err
    assert b"its child processes" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_is_passed_on_and_its_code_is_the_shells(tmp_path, number):
    process = start(tmp_path, "--report", "off", "sh", "-c", "echo ready; exec sleep 600", start_new_session=True)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    process.communicate()

    assert process.returncode == 128 + number
    wait_for((run_folder(tmp_path) / "final_summary.json").exists)
    assert summary_in(run_folder(tmp_path)).run.error.type == signal.Signals(number).name


def test_the_terminals_ctrl_c_reaches_the_command_once_and_its_report_is_made(tmp_path):
    (tmp_path / "train.py").write_text(INTERRUPTED)
    words = traceml("watch", "train.py")
    with PseudoTerminal(words, 100, 40, cwd=tmp_path, TRACEML_RUNS_DIR=str(tmp_path / "runs")) as terminal:
        terminal.wait_for_text("ready")
        terminal.type(b"\x03")
        assert terminal.wait_for_end() == 5
        assert "interrupted 1" in terminal.read()
        assert "Failed with exit code 5." in terminal.read()


def test_switched_off_the_command_runs_all_the_same(tmp_path):
    done = subprocess.run(
        traceml("watch", sys.executable, "-c", "print('ran')"),
        cwd=tmp_path,
        env=environment(tmp_path, TRACEML_DISABLED="1"),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"ran\n", b"")
    assert list(tmp_path.iterdir()) == []
