"""`mode="dashboard"`: a training that shows itself in a browser while it goes on."""

from __future__ import annotations

import re
import subprocess
import sys

from pages import Visitor
from waiting import LIMIT_S, wait_for

from traceml_core.reporting.summary import decode_summary

TRAINING = """
import sys
from pathlib import Path
from traceml_core.sdk import trace_run

with trace_run(name="followed", mode="dashboard", html=True) as run:
    for _ in run.batches(range(1_000_000)):
        with run.step():
            with run.phase("forward"):
                sum(range(20_000))
        if Path("enough").exists():
            break
print(sorted(name for name in ("jinja2", "starlette", "uvicorn") if name in sys.modules))
"""


def test_a_training_in_mode_dashboard_says_its_address_once_and_shows_itself_until_it_ends(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    line = process.stderr.readline()
    visitor = Visitor(re.search(r"dashboard at (http\S+)", line)[1])
    running = wait_for(lambda: _while_running(visitor))
    events = visitor.events(re.search(r'data-events="([^"]+)"', running)[1])
    assert "Still running" in next(events)[1]

    (tmp_path / "enough").touch()
    last = [data for name, data in events if name == "page"][-1]
    output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert output == "[]\n"
    assert "http" not in errors
    assert "Still running" not in last
    folder = next(path for path in (tmp_path / "traceml_runs").iterdir() if path.is_dir())
    assert decode_summary((folder / "final_summary.json").read_bytes()).run.status == "completed"
    assert (folder / "final_summary.html").exists()
    assert (folder / "errors.log").read_text() == ""
    assert not any(visitor.token in path.read_bytes().decode("latin-1") for path in folder.iterdir())
    wait_for(lambda: _is_gone(visitor))


def _while_running(visitor):
    page = visitor.get(visitor.path)
    return page.text if page.status == 200 and "Still running" in page.text else None


def _is_gone(visitor):
    try:
        visitor.get("/")
    except OSError:
        return True
    return False


def test_without_the_extra_training_goes_on_and_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    from traceml_core.runtime import dashboard_socket
    from traceml_core.sdk import trace_run

    monkeypatch.setattr(dashboard_socket, "DASHBOARD", ("no_such_module",))
    with trace_run(mode="dashboard", run_dir=str(tmp_path / "run")) as run:
        for _ in run.batches(range(3)):
            with run.step():
                pass
    said = capsys.readouterr().err

    assert said.splitlines()[0].endswith(
        "no dashboard is shown: no-such-module is not installed here; pip install 'traceml-callbacks[dashboard]'"
    )
    assert (tmp_path / "run" / "final_summary.json").exists()
