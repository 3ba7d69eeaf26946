"""The run folder: where one run lives, what is in it, and how it is found again."""

from __future__ import annotations

import re
import secrets
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from traceml_core.core.atomic_files import write_atomic
from traceml_core.core.settings import Settings

MANIFEST_VERSION = "1.0"


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
    def errors_log(self) -> Path:
        """What failed in TraceML itself."""
        return self.path / "errors.log"


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """The process that owns the run: its creation time tells it from a later process of the same number."""

    host: str
    pid: int
    created: float


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run before anything is measured. `started_at` is ISO 8601 UTC."""

    schema_version: str = MANIFEST_VERSION
    run_id: str
    name: str
    started_at: str
    labels: dict[str, str]
    owner: Owner


class RunLookupError(LookupError):
    """There is no such run; the message says what was looked for, and what to do."""


def create_run_folder(settings: Settings, now: datetime | None = None) -> RunFolder | None:
    """Make a new run folder; in the temporary folder where the one asked for cannot be written; else None.

    A folder that already holds a run is never used again: a numbered sibling is. A new `runs_dir` gets a `.gitignore`.
    """
    name = settings.name or script_name()
    stamp = (now or datetime.now(timezone.utc)).strftime("%Y%m%dT%H%M%SZ")
    run_id = f"{stamp}-{_slug(name)}-{secrets.token_hex(2)}"
    wanted = Path(settings.run_dir) if settings.run_dir else Path(settings.runs_dir) / run_id
    try:
        path = _make_run_dir(wanted) if settings.run_dir else _make_in_runs_dir(wanted)
    except OSError as error:
        try:
            fallback = Path(tempfile.mkdtemp(prefix=f"traceml-{_slug(name)}-"))
        except OSError:
            return None
        reason = f"{wanted} cannot be written ({error.strerror or error})"
        return RunFolder(fallback, run_id, name, f"{reason}; recording to {fallback} instead")
    taken = settings.run_dir is not None and path != wanted.absolute()
    notice = f"{wanted} already holds a run; recording to {path} instead" if taken else None
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
    except (OSError, msgspec.MsgspecError):
        return None


def open_run_folder(path: Path) -> RunFolder:
    """The run folder at `path`, as its manifest names it."""
    manifest = read_manifest(path)
    if manifest is None:
        return RunFolder(path, path.name, path.name)
    return RunFolder(path, manifest.run_id, manifest.name)


def run_folders(runs_dir: Path) -> list[Path]:
    """Every run folder in `runs_dir`, the newest first."""
    found = []
    if runs_dir.is_dir():
        for path in runs_dir.iterdir():
            manifest = read_manifest(path) if path.is_dir() else None
            if manifest is not None:
                found.append((manifest.started_at, path.name, path))
    return [path for *_, path in sorted(found, reverse=True)]


def find_run(target: str | None, runs_dir: str = "traceml_runs") -> Path:
    """The run folder that `target` names (a run folder, or a file in one); the newest of `runs_dir` where it is None.

    Raises:
        RunLookupError: there is none; the message says what to do.
    """
    if target is None:
        runs = run_folders(Path(runs_dir))
        if not runs:
            raise RunLookupError(f"there are no runs in {runs_dir}; train with a TraceMLCallback, or name a run folder")
        return runs[0]
    path = Path(target)
    if not path.exists():
        raise RunLookupError(f"{target} does not exist; `traceml list` shows the runs in {runs_dir}")
    folder = path if path.is_dir() else path.parent
    if not any((folder / name).exists() for name in ("manifest.json", "telemetry.sqlite", "final_summary.json")):
        raise RunLookupError(f"{target} is not a run folder; `traceml list` shows the runs in {runs_dir}")
    return folder


def _make_run_dir(wanted: Path) -> Path:
    wanted = wanted.absolute()
    path, number = wanted, 1
    while path.exists() and any(path.iterdir()):
        number += 1
        path = wanted.with_name(f"{wanted.name}-{number}")
    path.mkdir(parents=True, exist_ok=True)
    _probe(path)
    return path


def _make_in_runs_dir(wanted: Path) -> Path:
    wanted = wanted.absolute()
    if not wanted.parent.exists():
        wanted.parent.mkdir(parents=True)
        (wanted.parent / ".gitignore").write_text("*\n")
    wanted.mkdir()
    _probe(wanted)
    return wanted


def _probe(path: Path) -> None:
    """Fail now, not at the first row, where the folder cannot be written."""
    write_atomic(path / "errors.log", b"")


def _slug(name: str) -> str:
    """A run's name as part of a folder's: letters, digits, dot, dash, underscore; at most 60 of them."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:60] or "run"
