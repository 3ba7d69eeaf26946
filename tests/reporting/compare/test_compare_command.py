"""`traceml compare` on real run folders: what it prints and writes, its exit codes, and what it says of bad input."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from run_factory import HEALTHY_MS, make_run_folder

from traceml_core.cli import main
from traceml_core.core.phases import Phase

SLOWER_MS = {**HEALTHY_MS, Phase.FORWARD: 6.0}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs `traceml compare` with these arguments in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRACEML_RUNS_DIR", raising=False)
    return lambda *arguments: CliRunner().invoke(main, ["compare", *map(str, arguments)])


@pytest.fixture
def folders(tmp_path):
    runs = tmp_path / "traceml_runs"
    return make_run_folder(runs, name="before"), make_run_folder(runs, name="after", phases_ms=SLOWER_MS)


def one_line_of(result):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_two_folders_are_compared_and_the_phase_that_moved_is_named(run, folders):
    result = run(*folders)

    assert result.exit_code == 0
    assert "B is slower by 19% (" in result.stdout
    assert "of it forward 19 points" in " ".join(result.stdout.split())


def test_runs_are_found_by_name_and_by_summary_file(run, folders, tmp_path):
    text = run(*folders).stdout
    baseline = tmp_path / "baseline.json"
    baseline.write_bytes((folders[0] / "final_summary.json").read_bytes())

    assert run(folders[0].name, folders[1].name).stdout == text
    assert run(baseline, folders[1] / "final_summary.json").stdout == text


def test_the_gate_gives_one_for_a_regression_and_zero_for_anything_else(run, folders):
    before, after = folders

    assert run(before, after, "--fail-on", "regression").exit_code == 1
    assert run(after, before, "--fail-on", "regression").exit_code == 0
    assert run(before, before, "--fail-on", "regression", "--strict").exit_code == 0
    assert run(before, after, "--fail-on", "regression", "--margin", "40%").exit_code == 0
    assert run(before, after).exit_code == 0


def test_strict_gives_three_for_what_cannot_be_told(run, folders):
    before, _ = folders

    assert run(before, before, "--margin", "0.5%").exit_code == 0
    assert run(before, before, "--margin", "0.5%", "--strict", "--fail-on", "regression").exit_code == 3


def test_several_runs_a_side_are_given_by_name(run, tmp_path):
    runs = tmp_path / "traceml_runs"
    before = [make_run_folder(runs, name=f"before-{number}") for number in range(2)]
    after = [make_run_folder(runs, name=f"after-{number}", phases_ms=SLOWER_MS) for number in range(2)]
    result = run("--a", before[0], "--a", before[1], "--b", after[0], "--b", after[1], "--format", "json")

    assert [len(json.loads(result.stdout)[side]) for side in ("a", "b")] == [2, 2]
    assert json.loads(result.stdout)["verdict"] == "REGRESSION"


@pytest.mark.parametrize(
    ("form", "beginning"),
    [("text", " TraceML compare"), ("json", "{"), ("markdown", "### TraceML: "), ("html", "<!doctype html>")],
)
def test_output_goes_to_a_file_as_it_would_to_the_terminal(run, folders, tmp_path, form, beginning):
    shown = run(*folders, "--format", form).stdout
    result = run(*folders, "--format", form, "--output", tmp_path / "told", "--fail-on", "regression")

    assert shown.startswith(beginning)
    assert (tmp_path / "told").read_text() == shown
    assert (result.exit_code, result.stdout) == (1, "")


def test_a_comparison_that_cannot_be_asked_for_is_one_line_with_a_remedy(run, folders):
    before, after = folders

    for arguments in ((), (before,), (before, after, after), (before, after, "--a", before), ("--a", before)):
        assert "compare needs two sides: `traceml compare A B`" in one_line_of(run(*arguments))
    for margin in ("five", "0", "-1%", "150%", "nan%", ""):
        assert "write 5% or 0.05" in one_line_of(run(before, after, "--margin", margin))
    assert "choose another --output" in one_line_of(run(before, after, "--output", before / "no" / "file"))


def test_a_run_that_cannot_be_read_is_one_line_with_a_remedy_on_either_side(run, folders, tmp_path):
    good, _ = folders
    empty = tmp_path / "empty"
    empty.mkdir()
    newer = make_run_folder(tmp_path / "runs", steps=5)
    (newer / "final_summary.json").write_text('{"schema_version": "9.0"}')
    cut = make_run_folder(tmp_path / "runs", steps=5)
    run(cut, cut)
    (cut / "final_summary.json").write_bytes((cut / "final_summary.json").read_bytes()[:500])
    damaged = make_run_folder(tmp_path / "runs", steps=5)
    (damaged / "telemetry.sqlite").write_bytes(b"no database at all" * 100)
    foreign = tmp_path / "other.json"
    foreign.write_text('["somebody", "else"]')

    for bad in (empty, newer, cut, damaged, foreign, tmp_path / "nowhere"):
        for sides in ((good, bad), (bad, good)):
            assert str(bad.name) in one_line_of(run(*sides))


def test_a_run_that_failed_before_its_first_step_is_compared_as_inconclusive(run, folders, tmp_path):
    dead = make_run_folder(tmp_path / "runs", steps=0, status="failed")
    result = run(folders[0], dead, "--strict")

    assert result.exit_code == 3
    assert "[INCONCLUSIVE]" in result.stdout
    assert "undisturbed step was measured on one side only" in result.stdout
    assert "status: A completed, B failed" in result.stdout
