"""The run guard: an open run is closed with the error that ends it, and nobody's hooks or tracebacks are touched."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from session_scripts import run_folder, run_script, start_script, summary_in
from waiting import LIMIT_S

from traceml_core.runtime.run_guard import RunGuard

FAILING = """
def deep(depth):
    if depth:
        deep(depth - 1)
    raise ValueError("a batch of nothing\\nin two lines")

{open}
try:
    {{}}["missing"]
except KeyError as error:
    deep(3)
"""


@pytest.fixture
def hooks(monkeypatch):
    """`sys.excepthook` as it is found, and put back after the test."""
    calls: list[tuple[str, BaseException]] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: calls.append(("user", error)))
    return calls


def test_the_hook_before_ours_speaks_first_then_the_run_is_closed(hooks):
    guard = RunGuard(lambda error: hooks.append(("closed", error)))
    guard.arm()
    error = ValueError()
    sys.excepthook(ValueError, error, None)
    guard.disarm()
    assert hooks == [("user", error), ("closed", error)]


def test_disarming_puts_the_hook_back_and_is_safe_twice(hooks):
    before = sys.excepthook
    guard = RunGuard(lambda error: None)
    guard.disarm()
    guard.arm()
    assert sys.excepthook is not before
    guard.disarm()
    guard.disarm()
    assert sys.excepthook is before


def test_a_hook_that_came_after_ours_survives_and_ours_only_passes_on(hooks):
    guard = RunGuard(lambda error: hooks.append(("closed", error)))
    guard.arm()
    ours = sys.excepthook

    def later(*given):
        hooks.append(("later", given[1]))
        ours(*given)

    sys.excepthook = later
    guard.disarm()
    assert sys.excepthook is later
    error = ValueError()
    sys.excepthook(ValueError, error, None)
    assert hooks == [("later", error), ("user", error)]


def test_a_run_is_closed_though_the_hook_before_ours_fails(monkeypatch):
    def broken(*given):
        raise RuntimeError("broken hook")

    monkeypatch.setattr(sys, "excepthook", broken)
    closed: list[BaseException | None] = []
    guard = RunGuard(closed.append)
    guard.arm()
    error = ValueError()
    with pytest.raises(RuntimeError):
        sys.excepthook(ValueError, error, None)
    guard.disarm()
    assert closed == [error]


def test_a_disarmed_guard_keeps_nothing_of_the_run_alive(hooks):
    import weakref

    class Run:
        def close(self, error):
            raise AssertionError

    run = Run()
    guard = RunGuard(run.close)
    guard.arm()
    seen = weakref.ref(run)
    del run
    guard.disarm()
    assert seen() is None


def test_the_users_traceback_is_byte_for_byte_as_without_traceml_and_the_card_comes_after(tmp_path):
    plain = run_script(tmp_path, FAILING.format(open="pass"))
    watched = run_script(tmp_path, FAILING.format(open="session = open_run(); train(session, 20)"))
    assert plain.returncode == watched.returncode == 1
    start, _, rest = watched.stderr.partition("\n")
    assert start.startswith("TraceML: recording to")
    traceback = plain.stderr.replace("\n    pass\n", "\n    session = open_run(); train(session, 20)\n")
    assert rest.startswith(traceback)
    assert "ValueError" in rest[len(traceback) :]
    run = summary_in(run_folder(tmp_path)).run
    assert (run.status, run.error.type, run.steps) == ("failed", "ValueError", 20)


def test_a_hook_of_the_users_still_gets_the_error(tmp_path):
    ended = run_script(
        tmp_path,
        """
sys.excepthook = lambda kind, error, traceback: print("mine:", error)
session = open_run()
train(session, 5)
raise ValueError("boom")
""",
    )
    assert (ended.returncode, ended.stdout) == (1, "mine: boom\n")
    assert summary_in(run_folder(tmp_path)).run.status == "failed"


def test_ctrl_c_interrupts_the_run_and_not_the_report(tmp_path):
    process = start_script(
        tmp_path, "session = open_run(); train(session, 50); print('up', flush=True); train(session, 10**6)"
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in err and err.index("KeyboardInterrupt") < err.index("Where the time went")
    assert summary_in(run_folder(tmp_path)).run.status == "interrupted"


@pytest.mark.parametrize(("leave", "code"), [("sys.exit(4)", 4), ("raise SystemExit('no')", 1)])
def test_leaving_by_exit_with_an_open_run_is_an_interruption(tmp_path, leave, code):
    ended = run_script(tmp_path, f"session = open_run(); train(session, 5); {leave}")
    assert ended.returncode == code
    assert summary_in(run_folder(tmp_path)).run.status == "interrupted"


@pytest.mark.slow
def test_in_a_notebook_the_end_of_a_cell_closes_an_open_run_with_its_error(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    from session_scripts import LOOP, environment

    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    cells = [
        LOOP + "session = open_run(); train(session, 5)",
        "train(session, 5); print(session._closed)",
        "raise ValueError('in a cell')",
        "print(session._closed)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(
        notebook,
        timeout=int(LIMIT_S),
        startup_timeout=int(LIMIT_S),
        allow_errors=True,
        resources={"metadata": {"path": tmp_path}},
    ).execute()
    outputs = [[output.get("text") or output.get("ename") for output in cell.outputs] for cell in notebook.cells]
    assert outputs[1] == ["False\n"]
    assert outputs[2][0] == "ValueError" and "Where the time went" in outputs[2][1]
    assert outputs[3] == ["True\n"]
    run = summary_in(run_folder(tmp_path)).run
    assert (run.status, run.error.message, run.steps) == ("failed", "in a cell", 10)


@pytest.mark.parametrize(("ending", "told"), [("pass", "NoneType"), ("raise ValueError", "ValueError")])
def test_a_forked_rank_closes_its_run_when_it_ends(tmp_path, ending, told):
    script = FORKED.format(ending=ending)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (tmp_path / "told").read_text() == told, done.stderr


FORKED = """
import multiprocessing, sys, traceback
from pathlib import Path
from traceml_core.runtime.run_guard import RunGuard

def rank():
    guard = RunGuard(lambda error: Path("told").open("a").write(type(error).__name__))
    guard.arm()
    try:
        {ending}
    except ValueError:
        sys.exit(1)  # as torch's launchers do

process = multiprocessing.get_context("fork").Process(target=rank)
process.start()
process.join()
"""
