"""`traceml clean` deletes old runs after asking, and nothing else, whatever lies beside them or in them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from run_factory import make_run_folder

from traceml_core.cli import main
from traceml_core.reporting.old_runs import STILL_GOING_ON


@pytest.fixture
def runs(tmp_path):
    """Three finished runs, the oldest first."""
    return [make_run_folder(tmp_path / "runs", steps=3, name=name) for name in ("a", "b", "c")]


def clean(runs_dir, *arguments):
    return CliRunner().invoke(main, ["clean", "--runs-dir", str(runs_dir), *arguments])


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_all_but_the_newest_runs_are_deleted(runs):
    result = clean(runs[0].parent, "--keep", "1", "--yes")

    assert result.exit_code == 0
    assert names_in(runs[0].parent) == [runs[2].name]
    assert [line.split()[0] for line in result.stdout.splitlines()] == [runs[1].name, runs[0].name, "Deleted"]
    assert "Deleted 2 runs, " in result.stdout
    assert "KiB" in result.stdout


def test_nothing_is_deleted_without_somebody_who_says_yes(runs):
    result = clean(runs[0].parent, "--keep", "0")

    assert result.exit_code == 2
    assert result.stderr.startswith("traceml: there is no terminal to ask in; add --yes to delete 3 runs, ")
    assert result.stderr.count("\n") == 1
    assert len(names_in(runs[0].parent)) == 3


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", 3), (b"y\n", 1)])
def test_in_a_terminal_it_asks(runs, answer, left):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "traceml_core", "clean", "--runs-dir", str(runs[0].parent), "--keep", "1"]
    os.write(ours, answer)
    done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, timeout=60)
    for end in (ours, theirs):
        os.close(end)

    assert done.returncode == 0
    assert "Delete 2 runs, " in done.stdout
    assert len(names_in(runs[0].parent)) == left


def test_folders_that_are_no_runs_are_not_touched(runs):
    runs_dir = runs[0].parent
    (runs_dir / "checkpoints").mkdir()
    (runs_dir / "checkpoints" / "model.pt").write_bytes(b"weights")
    (runs_dir / "damaged").mkdir()
    (runs_dir / "damaged" / "manifest.json").write_text("{")
    (runs_dir / "notes.txt").write_text("notes")
    clean(runs_dir, "--keep", "0", "--yes")

    assert names_in(runs_dir) == ["checkpoints", "damaged", "notes.txt"]
    assert names_in(runs_dir / "checkpoints") == ["model.pt"]


def test_a_run_folder_that_is_a_link_stays_and_so_does_what_it_points_to(runs, tmp_path):
    elsewhere = make_run_folder(tmp_path / "elsewhere", steps=3)
    (runs[0].parent / "link").symlink_to(elsewhere)
    result = clean(runs[0].parent, "--keep", "0", "--yes")

    assert names_in(runs[0].parent) == ["link"]
    assert "link is left alone: it is a link" in result.stderr
    assert "telemetry.sqlite" in names_in(elsewhere)


def test_a_link_takes_no_place_among_those_that_are_kept(runs):
    link = runs[0].parent / "latest"
    link.symlink_to(runs[2].name)
    result = clean(runs[0].parent, "--keep", "1", "--yes")

    assert names_in(runs[0].parent) == [runs[2].name, "latest"]
    assert "latest is left alone: it is a link" in result.stderr


def test_a_page_of_the_run_while_it_went_on_goes_with_it(runs):
    (runs[0] / "live_summary.html").write_text("<html>")
    clean(runs[0].parent, "--keep", "2", "--yes")

    assert not runs[0].exists()


def test_files_that_go_meanwhile_are_no_error(runs, monkeypatch):
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: [*listed(path), path / "telemetry.sqlite-wal"])

    assert clean(runs[0].parent, "--keep", "2", "--yes").exit_code == 0
    assert not runs[0].exists()


def test_a_run_folder_with_somebody_elses_files_stays_whole(runs):
    (runs[0] / "model.pt").write_bytes(b"weights")
    (runs[1] / "errors.log.d").mkdir()
    before = names_in(runs[0])
    result = clean(runs[0].parent, "--keep", "1", "--yes")

    assert names_in(runs[0]) == before
    assert runs[1].is_dir()
    assert "it holds files that are not TraceML's (model.pt); move or delete them" in result.stderr
    assert "Nothing to delete" in result.stdout


def test_a_run_that_is_still_going_on_stays(tmp_path):
    alive = make_run_folder(tmp_path, steps=3, status=None, owner_lives=True)
    make_run_folder(tmp_path, steps=3)
    result = clean(tmp_path, "--keep", "0", "--yes")

    assert names_in(tmp_path) == [alive.name]
    assert STILL_GOING_ON in result.stderr


def test_half_of_an_atomic_write_goes_with_its_run(runs):
    (runs[0] / ".final_summary.json.0a1b2c3d").write_text("{")
    clean(runs[0].parent, "--keep", "2", "--yes")

    assert not runs[0].exists()
