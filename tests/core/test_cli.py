"""The `traceml` command: what it prints, what it writes, and how it says that it cannot."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from run_factory import make_run_folder
from validation import assert_valid_summary

from traceml_core import __version__
from traceml_core.cli import main
from traceml_core.reporting.html.page import GENERATOR
from traceml_core.telemetry.messages import RunError


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs `traceml` with these arguments in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRACEML_RUNS_DIR", raising=False)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def one_line_of(result):
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_the_report_of_a_killed_run_is_built_and_its_files_are_written(run, tmp_path):
    folder = make_run_folder(tmp_path / "traceml_runs", steps=50, status=None)
    result = run("report", folder)

    assert result.exit_code == 0
    assert "Interrupted after step 50" in result.stdout
    assert_valid_summary(folder / "final_summary.json")
    assert "Interrupted after step 50" in (folder / "final_summary.txt").read_text()


@pytest.mark.parametrize(("page", "stays"), [(f"<head>{GENERATOR}", False), ("<head>mine", True)])
def test_with_the_report_of_a_killed_run_the_page_that_says_running_goes_where_it_is_ours(run, tmp_path, page, stays):
    folder = make_run_folder(tmp_path / "traceml_runs", steps=50, status=None)
    (folder / "live_summary.html").write_text(page)
    run("report", folder)

    assert (folder / "live_summary.html").exists() is stays


def test_the_report_of_a_run_in_progress_is_shown_and_nothing_is_written(run, tmp_path):
    folder = make_run_folder(tmp_path / "traceml_runs", steps=50, status=None, owner_lives=True)
    before = sorted(folder.iterdir())
    result = run("report", folder)

    assert result.exit_code == 0
    assert "Still running, after 50 steps." in result.stdout
    assert sorted(folder.iterdir()) == before


def test_the_report_of_a_finished_run_is_the_one_that_was_written(run, tmp_path):
    folder = make_run_folder(tmp_path / "traceml_runs", steps=50)
    run("report", folder)
    summary = json.loads((folder / "final_summary.json").read_text())
    summary["run"]["name"] = "as-it-was-written"
    (folder / "final_summary.json").write_text(json.dumps(summary))

    assert "as-it-was-written" in run("report", folder).stdout
    assert "as-it-was-written" not in run("report", folder, "--rebuild").stdout
    assert "as-it-was-written" not in run("report", folder).stdout


def test_without_an_argument_it_is_the_newest_run(run, tmp_path):
    make_run_folder(tmp_path / "traceml_runs", steps=20, name="older")
    make_run_folder(tmp_path / "traceml_runs", steps=20, name="newer")

    assert "newer" in run("report").stdout.splitlines()[0]


def test_a_summary_file_can_be_named_wherever_it_lies(run, tmp_path):
    folder = make_run_folder(tmp_path / "runs", steps=20)
    run("report", folder)
    copied = tmp_path / "baseline.json"
    copied.write_bytes((folder / "final_summary.json").read_bytes())

    assert "train-digits" in run("report", copied).stdout
    assert "train-digits" in run("report", folder / "final_summary.json").stdout


def test_json_is_the_summary_itself(run, tmp_path):
    folder = make_run_folder(tmp_path / "runs", steps=20)
    result = run("report", folder, "--format", "json")

    assert result.stdout == (folder / "final_summary.json").read_text()


def test_details_add_a_table_for_each_section_with_numbers(run, tmp_path):
    lines = run("report", make_run_folder(tmp_path / "runs", steps=50), "--details").stdout.splitlines()

    assert any(line.split()[0::2][:2] == ["forward_ms", "ms"] for line in lines)
    assert {"Step time", "Step memory", "Process", "System"} <= set(lines)


def test_output_goes_to_a_file_where_asked_for(run, tmp_path):
    folder = make_run_folder(tmp_path / "runs", steps=20)
    result = run("report", folder, "--output", tmp_path / "report.txt")

    assert result.stdout == ""
    assert "train-digits" in (tmp_path / "report.txt").read_text()


def test_a_folder_that_cannot_be_written_is_reported_all_the_same(run, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("planted")

    folder = make_run_folder(tmp_path / "runs", steps=20)
    monkeypatch.setattr("traceml_core.reporting.final.write_atomic", refuse)

    assert run("report", folder).exit_code == 0
    assert not (folder / "final_summary.json").exists()


def test_what_cannot_be_reported_is_said_in_one_line_with_a_remedy(run, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    without_history = make_run_folder(tmp_path / "runs", history=False)
    damaged = make_run_folder(tmp_path / "runs", steps=5)
    (damaged / "telemetry.sqlite").write_bytes(b"no database at all" * 100)
    stale = make_run_folder(tmp_path / "runs", steps=5)
    (stale / "final_summary.json").write_text('{"schema_version": "0.9"}')
    newer = make_run_folder(tmp_path / "runs", steps=5)
    (newer / "final_summary.json").write_text('{"schema_version": "9.0"}')

    assert "there are no runs in traceml_runs; train with" in one_line_of(run("report"))
    assert "does not exist; `traceml list`" in one_line_of(run("report", tmp_path / "nowhere"))
    assert "is not a run folder" in one_line_of(run("report", empty))
    assert "no telemetry yet" in one_line_of(run("report", without_history))
    assert "telemetry.sqlite" in one_line_of(run("report", damaged))
    assert "traceml report --rebuild" in one_line_of(run("report", stale))
    assert "was written by a newer TraceML; update this one" in one_line_of(run("report", newer))
    assert "cannot be written" in one_line_of(run("report", stale, "--rebuild", "--output", tmp_path / "no" / "file"))


def test_the_list_has_a_line_for_each_run_the_newest_first(run, tmp_path):
    runs = tmp_path / "traceml_runs"
    done = make_run_folder(runs, steps=50, name="a-done")
    failed = make_run_folder(runs, steps=50, name="b-failed", status="failed", error=RunError("ValueError"))
    killed = make_run_folder(runs, steps=50, name="c-killed", status=None)
    alive = make_run_folder(runs, steps=50, name="d-alive", status=None, owner_lives=True)
    for folder in (done, failed):
        run("report", folder)
    lines = [line.split() for line in run("list").stdout.splitlines()]

    assert [line[:2] for line in lines] == [
        ["RUN", "STATUS"],
        [alive.name, "running"],
        [killed.name, "interrupted"],
        [failed.name, "failed"],
        [done.name, "completed"],
    ]


def test_a_list_without_runs_says_what_to_do(run):
    result = run("list")

    assert result.exit_code == 0
    assert "Train with a TraceMLCallback" in result.stdout


def test_the_version_is_told_by_the_command_and_by_the_module():
    command = [sys.executable, "-m", "traceml_core", "--version"]

    assert subprocess.run(command, capture_output=True, text=True).stdout.strip().endswith(__version__)


def test_help_loads_nothing_heavy():
    script = (
        "import sys; sys.argv = ['traceml', '--help']\n"
        "from traceml_core.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('numpy', 'rich', 'torch', 'sqlite3') if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert result.stderr.strip() == "[]"
