"""The run folder: where one run lives, what is in it, and how it is found again."""

from __future__ import annotations

import itertools
import os
import re
import secrets
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import msgspec

from traceml_core.core.atomic_files import write_atomic
from traceml_core.core.presence import is_folder, is_there
from traceml_core.core.settings import Settings

MANIFEST_VERSION = "1.0"
# What decoding a damaged JSON file raises; RecursionError where it is nested too deep.
UNDECODABLE = (msgspec.MsgspecError, RecursionError)

# A folder with one of these holds a run.
_RUN_FILES = ("manifest.json", "telemetry.sqlite", "final_summary.json")
# Whatever TraceML itself puts into a run folder; nothing else in one is ever deleted.
RUN_FOLDER_FILES = (
    *_RUN_FILES,
    *(f"telemetry.sqlite-{suffix}" for suffix in ("wal", "shm", "journal")),
    "live_summary.json",
    "live_summary.html",
    "final_summary.txt",
    "final_summary.html",
    "errors.log",
)


class RunFolder(msgspec.Struct, frozen=True):
    """One run's folder. `notice` says where it is and why, when that is not where it was asked for."""

    path: Path
    run_id: str
    name: str
    notice: str | None = None

    @property
    def manifest(self) -> Path:
        """What ran, by whom, since when."""
        return self.path / "manifest.json"

    @property
    def history(self) -> Path:
        """Every row, in SQLite."""
        return self.path / "telemetry.sqlite"

    @property
    def live_summary(self) -> Path:
        """The summary so far, while the run goes on."""
        return self.path / "live_summary.json"

    @property
    def final_summary_json(self) -> Path:
        """The account of the run."""
        return self.path / "final_summary.json"

    @property
    def final_summary_text(self) -> Path:
        """The card, as plain text."""
        return self.path / "final_summary.txt"

    @property
    def final_summary_html(self) -> Path:
        """The report as a page that opens in a browser, where it was asked for."""
        return self.path / "final_summary.html"

    @property
    def errors_log(self) -> Path:
        """What failed in TraceML itself."""
        return self.path / "errors.log"


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """The process that owns the run: its birth tells it from a later process of the same number.

    The number means something in one PID namespace alone: containers may share a host's name. Null where there is none.
    """

    host: str
    pid: int
    birth: str | None
    pid_namespace: str | None = None


class OwnerError(msgspec.Struct, frozen=True, kw_only=True):
    """An error of which the owner of a run heard; `rank` is null where it is no single rank's."""

    rank: int | None
    type: str
    message: str | None


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended, by the word of an owner that is no rank of it: ranks that died could not tell it."""

    status: Literal["completed", "failed", "interrupted"]
    errors: tuple[OwnerError, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run beside what is measured. `started_at` is ISO 8601 UTC.

    `ending` is null until the owner tells it, and where the owner is a rank, which tells of itself.
    """

    schema_version: str = MANIFEST_VERSION
    run_id: str
    name: str
    started_at: str
    labels: dict[str, str]
    owner: Owner
    ending: Ending | None = None


class RunLookupError(LookupError):
    """There is no such run; the message says what was looked for, and what to do."""


def create_run_folder(settings: Settings, now: datetime | None = None) -> RunFolder | None:
    """Make a new run folder; in the temporary folder where the one asked for cannot be written; else None.

    A folder that already holds a run is never used again: a numbered sibling is. A new `runs_dir` gets a `.gitignore`.
    """
    name = settings.name or script_name()
    stamp = (now or datetime.now(timezone.utc)).strftime("%Y%m%dT%H%M%SZ")
    run_id = f"{stamp}-{_slug(name)}-{secrets.token_hex(2)}"
    asked_for = settings.run_dir or f"{settings.runs_dir}/{run_id}"
    # Not Path.expanduser, which raises where there is no such user.
    wanted = Path(os.path.expanduser(asked_for)).absolute()  # noqa: PTH111
    try:
        if settings.run_dir is None:
            _make_runs_dir(wanted.parent)
        path = _claim(wanted)
    except OSError as error:
        try:
            fallback = Path(tempfile.mkdtemp(prefix=f"traceml-{_slug(name)}-"))
        except OSError:
            return None
        reason = f"{wanted} cannot be written ({error.strerror or error})"
        return RunFolder(fallback, run_id, name, f"{reason}; recording to {fallback} instead")
    notice = f"{wanted} already holds a run; recording to {path} instead" if path != wanted else None
    return RunFolder(path, run_id, name, notice)


def script_name() -> str:
    """The stem of the script that runs; `notebook` or `python` where there is none."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file:
        return Path(file).stem
    return "notebook" if "ipykernel" in sys.modules else "python"


def write_manifest(folder: RunFolder, manifest: Manifest) -> None:
    """Write the manifest.

    Raises:
        OSError: it could not be written.
    """
    write_atomic(folder.manifest, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of a run folder, or None where it is missing or not ours."""
    try:
        return msgspec.json.decode((path / "manifest.json").read_bytes(), type=Manifest)
    except (OSError, *UNDECODABLE):
        return None


def open_run_folder(path: Path) -> RunFolder:
    """The run folder at `path`, as its manifest names it."""
    manifest = read_manifest(path)
    if manifest is None:
        return RunFolder(path, path.name, path.name)
    return RunFolder(path, manifest.run_id, manifest.name)


def run_folders(runs_dir: Path) -> list[Path]:
    """Every run folder in `runs_dir`, the newest first.

    Raises:
        RunLookupError: the folder cannot be read.
    """
    found = []
    for path in _folders_in(runs_dir):
        manifest = read_manifest(path)
        if manifest is not None:
            found.append((manifest.started_at, path.name, path))
    return [path for *_, path in sorted(found, reverse=True)]


def folders_without_manifest(runs_dir: Path) -> list[Path]:
    """Folders in `runs_dir` that hold files of a run, by name, but no manifest that can be read.

    Raises:
        RunLookupError: the folder cannot be read.
    """
    found = [path for path in _folders_in(runs_dir) if _holds_run(path) and read_manifest(path) is None]
    return sorted(found, key=lambda path: path.name, reverse=True)


def find_run(target: str | None, runs_dir: str = "traceml_runs") -> Path:
    """The run folder that `target` names: a path of it or of a file in it, or its name in `runs_dir`.

    Where it is None: the newest in `runs_dir`.

    Raises:
        RunLookupError: there is none; the message says what to do.
    """
    if target is None:
        runs = run_folders(Path(runs_dir))
        if not runs:
            raise RunLookupError(f"there are no runs in {runs_dir}; train with a TraceMLCallback, or name a run folder")
        return runs[0]
    path = Path(target) if is_there(Path(target)) else Path(runs_dir) / target
    if not is_there(path):
        raise RunLookupError(f"{target} does not exist; `traceml list` shows the runs in {runs_dir}")
    folder = path if is_folder(path) else path.parent
    if not os.access(folder, os.R_OK | os.X_OK):
        raise RunLookupError(f"{folder} may not be read; ask its owner, or name another run")
    if not _holds_run(folder):
        raise RunLookupError(f"{target} is not a run folder; `traceml list` shows the runs in {runs_dir}")
    return folder


def _folders_in(runs_dir: Path) -> list[Path]:
    try:
        return [path for path in runs_dir.iterdir() if is_folder(path)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunLookupError(f"{runs_dir} cannot be read ({error.strerror}); name another --runs-dir") from error


def _holds_run(folder: Path) -> bool:
    return any(is_there(folder / name) for name in _RUN_FILES)


def _make_runs_dir(path: Path) -> None:
    if not path.exists():
        path.mkdir(parents=True, exist_ok=True)
        (path / ".gitignore").write_text("*\n", encoding="utf-8")


def _claim(wanted: Path) -> Path:
    """Make `wanted`, or where it holds a run its first free numbered sibling, and make it this run's.

    Making `errors.log` shows that there is room and leave to write, and of two runs that want one folder one succeeds.

    Raises:
        OSError: it cannot be written.
    """
    for number in itertools.count(1):
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        path.mkdir(parents=True, exist_ok=True)
        if _holds_run(path):
            continue
        try:
            with (path / "errors.log").open("xb") as file:
                file.write(bytes(4096))
                file.flush()
                file.truncate(0)
        except FileExistsError:
            continue
        return path
    raise AssertionError("there are infinitely many numbers")


def _slug(name: str) -> str:
    """A run's name as part of a folder's: letters, digits, dot, dash, underscore; at most 60 of them."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:60] or "run"
