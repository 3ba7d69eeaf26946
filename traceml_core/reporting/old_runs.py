"""Old runs: which of a folder's runs could be deleted, and the deleting, which touches nothing else."""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path

import msgspec

from traceml_core.core.run_folder import RUN_FOLDER_FILES, run_folders
from traceml_core.reporting.stored_summary import is_going_on

STILL_GOING_ON = "its run is still going on"
MOST_NAMED = 3


class OldRun(msgspec.Struct, frozen=True):
    """A run that is not among the newest; `kept_because` says why it stays all the same."""

    path: Path
    size_bytes: int
    kept_because: str | None


def old_runs(runs_dir: Path, keep: int) -> list[OldRun]:
    """All runs but the newest `keep`, the newest first. A link is no run of its own and none of those kept.

    Raises:
        RunLookupError: the folder cannot be read.
    """
    found = run_folders(runs_dir)
    kept = [path for path in found if not path.is_symlink()][:keep]
    return [OldRun(path, _size_bytes(path), _kept_because(path)) for path in found if path not in kept]


def delete_run(path: Path) -> str | None:
    """Delete a run folder, unless there is a reason not to, which is looked for once more and given back.

    The manifest goes last: a deletion that is cut short leaves what is still known as a run.

    Raises:
        OSError: a file cannot be deleted.
    """
    reason = _kept_because(path)
    if reason is not None:
        return reason
    for file in sorted(path.iterdir(), key=lambda file: file.name == "manifest.json"):
        file.unlink(missing_ok=True)
    path.rmdir()
    return None


def _kept_because(path: Path) -> str | None:
    if path.is_symlink():
        return "it is a link"
    if is_going_on(path):
        return STILL_GOING_ON
    strange = sorted(file.name for file in path.iterdir() if _is_strange(file))
    if strange:
        more = f" and {len(strange) - MOST_NAMED} more" if len(strange) > MOST_NAMED else ""
        return f"it holds files that are not TraceML's ({', '.join(strange[:MOST_NAMED])}{more}); move or delete them"
    return None


def _is_strange(file: Path) -> bool:
    """Whether somebody else made it. `.NAME.hex` is half of an atomic write of TraceML's, killed on the way."""
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:  # it has gone meanwhile, as SQLite's own files do
        return False
    name = file.name
    is_named_ours = name in RUN_FOLDER_FILES or (
        name.startswith(".") and name[1:].rpartition(".")[0] in RUN_FOLDER_FILES
    )
    return not (stat.S_ISREG(mode) and is_named_ours)


def _size_bytes(path: Path) -> int:
    size = 0
    with suppress(FileNotFoundError):
        for file in path.iterdir():
            with suppress(FileNotFoundError):
                size += file.lstat().st_size
    return size
