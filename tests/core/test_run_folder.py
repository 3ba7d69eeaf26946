"""The run folder is where it was asked for, else somewhere that is said; and it is found again."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tempfile
import threading
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceml_core.core import run_folder
from traceml_core.core.atomic_files import write_atomic
from traceml_core.core.run_folder import (
    Manifest,
    Owner,
    RunFolder,
    RunLookupError,
    create_run_folder,
    find_run,
    open_run_folder,
    read_manifest,
    run_folders,
    script_name,
    write_manifest,
)
from traceml_core.core.settings import resolve_settings

ROOT = str(Path(__file__).parents[2])
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone.utc)


def create(**settings) -> RunFolder:
    folder = create_run_folder(resolve_settings({}, **settings), NOW)
    assert folder is not None
    return folder


def make_manifest(folder: RunFolder, started_at: str = "2026-03-04T05:06:07.000+00:00") -> Manifest:
    owner = Owner(host="node1", pid=17, birth="boot/1700")
    return Manifest(
        run_id=folder.run_id, name=folder.name, started_at=started_at, labels={"team": "vision"}, owner=owner
    )


def test_a_folder_is_named_by_time_name_and_chance(tmp_path):
    folder = create(runs_dir=str(tmp_path / "runs"), name="my training")
    assert folder.path.parent == tmp_path / "runs"
    assert re.fullmatch(r"20260304T050607Z-my-training-[0-9a-f]{4}", folder.path.name)
    assert (folder.run_id, folder.name, folder.notice) == (folder.path.name, "my training", None)


def test_a_new_runs_dir_is_kept_out_of_git_and_an_old_one_is_left_alone(tmp_path):
    create(runs_dir=str(tmp_path / "new" / "runs"))
    assert (tmp_path / "new" / "runs" / ".gitignore").read_text() == "*\n"
    create(runs_dir=str(tmp_path / "new"))
    assert not (tmp_path / "new" / ".gitignore").exists()


@pytest.mark.parametrize(
    "name", ["../../etc", "<script>alert(1)</script>", "..", "/", "ü" * 300, "a\nb", "-rf ~", "con."]
)
def test_any_name_makes_one_plain_folder(tmp_path, name):
    folder = create(runs_dir=str(tmp_path), name=name)
    assert folder.path.parent == tmp_path
    assert re.fullmatch(r"20260304T050607Z-[A-Za-z0-9._-]{1,60}-[0-9a-f]{4}", folder.path.name)
    assert folder.name == name


def test_a_run_dir_is_used_exactly_as_given_also_when_other_files_are_in_it(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    assert create(run_dir=str(tmp_path)).path == tmp_path


def test_a_run_dir_that_holds_a_run_is_kept_and_a_numbered_sibling_is_used(tmp_path):
    first = create(run_dir=str(tmp_path / "run"))
    write_manifest(first, make_manifest(first))
    second = create(run_dir=str(tmp_path / "run"))
    third = create(run_dir=str(tmp_path / "run"))
    assert [folder.path.name for folder in (first, second, third)] == ["run", "run-2", "run-3"]
    assert second.notice == f"{tmp_path / 'run'} already holds a run; recording to {tmp_path / 'run-2'} instead"


def test_of_runs_that_want_one_run_dir_at_once_each_gets_its_own(tmp_path):
    paths = []
    threads = [
        threading.Thread(target=lambda: paths.append(create(run_dir=str(tmp_path / "run")).path)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 8


def test_where_nothing_can_be_written_the_temporary_folder_is_used_and_the_reason_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder = create(runs_dir=str(tmp_path / "file" / "runs"))
    assert folder.path.is_dir()
    assert folder.path.is_relative_to(tempfile.gettempdir())
    assert "Not a directory" in folder.notice
    assert folder.notice.endswith(f"recording to {folder.path} instead")
    folder.path.rmdir()


def test_where_even_that_fails_there_is_no_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    assert create_run_folder(resolve_settings({}, run_dir=str(tmp_path / "file" / "run"))) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_noticed_before_the_run_begins(tmp_path, monkeypatch):
    real_open = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode: real_open(Path("/dev/full"), "wb"))
    folder = create(run_dir=str(tmp_path / "run"))
    assert "No space left" in folder.notice
    folder.path.rmdir()


def test_the_home_folder_may_be_spelled_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert create(run_dir="~/run").path == tmp_path / "run"


def test_the_umask_decides_who_may_read(tmp_path):
    before = os.umask(0o027)
    try:
        folder = create(runs_dir=str(tmp_path / "runs"))
        write_manifest(folder, make_manifest(folder))
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o750
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.path.iterdir()} == {0o640}


@pytest.mark.parametrize(
    ("command", "name"),
    [(["-c", "{code}"], "python"), (["{script}"], "my.train"), (["-m", "train_module"], "train_module")],
)
def test_the_default_name_is_the_scripts_stem(tmp_path, command, name):
    code = f"import sys; sys.path.insert(0, {ROOT!r}); from traceml_core.core.run_folder import *; print(script_name())"
    (tmp_path / "my.train.py").write_text(code)
    (tmp_path / "train_module.py").write_text(code)
    arguments = [part.format(code=code, script=tmp_path / "my.train.py") for part in command]
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert result.stdout.strip() == name


def test_a_notebook_is_called_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", type(sys)("__main__"))
    monkeypatch.setitem(sys.modules, "ipykernel", type(sys)("ipykernel"))
    assert script_name() == "notebook"


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    folder = create(runs_dir=str(tmp_path), name="a")
    manifest = make_manifest(folder)
    write_manifest(folder, manifest)
    assert read_manifest(folder.path) == manifest
    assert open_run_folder(folder.path) == RunFolder(folder.path, folder.run_id, "a")


def test_a_manifest_from_before_owners_told_of_the_end_is_read(tmp_path):
    folder = create(runs_dir=str(tmp_path), name="a")
    told = msgspec.to_builtins(make_manifest(folder))
    del told["ending"]
    folder.manifest.write_bytes(msgspec.json.encode(told))
    assert read_manifest(folder.path) == make_manifest(folder)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b"\xff"])
def test_a_folder_without_a_manifest_of_ours_has_none(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    assert read_manifest(tmp_path) is None
    assert open_run_folder(tmp_path).name == tmp_path.name


def test_runs_are_listed_from_the_newest_on_and_other_folders_left_out(tmp_path):
    for name, started_at in (("b", "2026-01-02"), ("a", "2026-01-03"), ("c", "2026-01-01")):
        folder = create(run_dir=str(tmp_path / name))
        write_manifest(folder, make_manifest(folder, started_at))
    (tmp_path / "something else").mkdir()
    (tmp_path / "a file").write_text("")
    assert [path.name for path in run_folders(tmp_path)] == ["a", "b", "c"]
    assert find_run(None, str(tmp_path)) == tmp_path / "a"


def test_a_run_is_found_by_its_path_a_file_in_it_or_its_name(tmp_path):
    folder = create(run_dir=str(tmp_path / "run"))
    write_manifest(folder, make_manifest(folder))
    for target in (folder.path, folder.manifest):
        assert find_run(str(target)) == folder.path
    assert find_run("run", str(tmp_path)) == folder.path


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "there are no runs in .*; train with a TraceMLCallback"),
        ("no such run", "no such run does not exist; `traceml list` shows"),
        (".", "is not a run folder; `traceml list` shows"),
    ],
)
def test_a_run_that_is_not_there_is_told_with_what_to_do(tmp_path, monkeypatch, target, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunLookupError, match=message):
        find_run(target)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@given(data=st.binary(max_size=1000))
def test_what_is_written_is_what_is_read(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("files") / "file"
    write_atomic(path, data)
    assert path.read_bytes() == data


def test_every_file_of_a_run_lies_in_its_folder(tmp_path):
    folder = RunFolder(tmp_path, "id", "name")
    properties = [name for name, value in vars(RunFolder).items() if isinstance(value, property)]
    assert {getattr(folder, name).name for name in properties} == {
        "manifest.json",
        "telemetry.sqlite",
        "live_summary.json",
        "final_summary.json",
        "final_summary.txt",
        "final_summary.html",
        "errors.log",
    }
    assert all(getattr(folder, name).parent == tmp_path for name in properties)
    assert run_folder.MANIFEST_VERSION == "1.0"
