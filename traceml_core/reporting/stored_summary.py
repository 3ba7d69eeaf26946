"""The summary of a run that lies in a folder: read where it was written, built from the rows where it was not."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

from traceml_core.core.presence import is_file, is_there
from traceml_core.core.run_folder import UNDECODABLE, read_manifest
from traceml_core.reporting.owner import owner_lives, silence_of
from traceml_core.reporting.summary import SCHEMA_VERSION, FinalSummary, decode_summary

# The newest account first.
SUMMARY_FILES = ("final_summary.json", "live_summary.json")


class SummaryUnavailableError(Exception):
    """There is no summary to be had; the message says why, and what to do."""


class RunBrief(msgspec.Struct, frozen=True, kw_only=True):
    """A run in brief, as a list shows it. What nobody knows is null; `problem` says why nothing is known.

    `status` is a summary's, or 'damaged' or 'newer' where what is stored cannot be read by this version.
    """

    run: str
    status: str
    name: str | None = None
    started_at: str | None = None
    kind: str | None = None
    verdict: str | None = None
    severity: str | None = None
    steps: int | None = None
    duration_s: float | None = None
    problem: str | None = None


def read_summary(path: Path) -> FinalSummary:
    """The summary in a file.

    Raises:
        SummaryUnavailableError: it is missing, or none of this schema version.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SummaryUnavailableError(f"{path} cannot be read ({error.strerror}); name a run folder") from error
    try:
        return decode_summary(data)
    except UNDECODABLE as error:
        if is_newer(data):
            raise SummaryUnavailableError(
                f"{path} was written by a newer TraceML; update this one (pip install -U traceml-callbacks)"
            ) from error
        raise SummaryUnavailableError(
            f"{path} is no summary that this version reads ({error}); run `traceml report --rebuild` on its folder"
        ) from error


def load_summary(folder: Path, *, rebuild: bool = False) -> FinalSummary:
    """The final summary of a run; built from its history where there is none yet, or where `rebuild` asks for it.

    Of a run that has ended the final files are then written, where the folder can be written to and every section could
    be built: damaged rows do not take the place of an account that says more.

    Raises:
        SummaryUnavailableError: there is neither a readable summary nor a history.
    """
    final = folder / "final_summary.json"
    if is_there(final) and not rebuild:
        return read_summary(final)
    _require_history(folder)
    from traceml_core.history.reader import HistoryUnreadableError
    from traceml_core.reporting.final import build_summary, unbuilt_sections

    try:
        summary = build_summary(folder)
    except HistoryUnreadableError as error:
        raise SummaryUnavailableError(str(error)) from error
    if summary.run.status != "running":
        is_whole = not unbuilt_sections(summary)
        _refuse_to_worsen(final, is_whole)
        if is_whole:
            with suppress(OSError):  # a folder of somebody else's: the summary is shown all the same
                _keep(folder, summary)
    return summary


def _keep(folder: Path, summary: FinalSummary) -> None:
    """Write the final files, and delete the live ones."""
    from traceml_core.reporting.card import render_card
    from traceml_core.reporting.final import write_final

    write_final(folder, summary, render_card(summary, folder=str(folder)))
    delete_live_files(folder)


def delete_live_files(folder: Path) -> None:
    """Delete what says 'running', which is no longer true: the live summary, and its page where TraceML made it.

    Raises:
        OSError: one cannot be deleted.
    """
    (folder / "live_summary.json").unlink(missing_ok=True)
    page = folder / "live_summary.html"
    if is_file(page):
        from traceml_core.reporting.html.page import is_ours

        if is_ours(page):
            page.unlink(missing_ok=True)


def _refuse_to_worsen(final: Path, is_whole: bool) -> None:
    """An account that is there is not replaced by one that says less: of an older version, or with sections unbuilt."""
    if not is_file(final):
        return
    try:
        data = final.read_bytes()
    except OSError as error:
        raise SummaryUnavailableError(
            f"{final} cannot be read ({error.strerror}) and is left as it is; ask its owner"
        ) from error
    if is_newer(data):
        raise SummaryUnavailableError(
            f"{final} was written by a newer TraceML and left as it is; "
            "update this one (pip install -U traceml-callbacks)"
        )
    if not is_whole and _is_readable(data):
        raise SummaryUnavailableError(
            f"{final} was left as it is: telemetry.sqlite beside it is damaged in parts, and a new report would "
            "say less; leave out --rebuild"
        )


def check_readable(folder: Path) -> None:
    """Nothing, where there is something to show of a run now or as soon as it begins; no report is built for that.

    Raises:
        SummaryUnavailableError: there is neither a readable summary nor a history.
    """
    if is_there(folder / "final_summary.json"):
        read_summary(folder / "final_summary.json")
    elif not is_there(folder / "live_summary.json") and not is_going_on(folder):
        _check_history(folder)


def _check_history(folder: Path) -> None:
    _require_history(folder)
    from traceml_core.history.reader import HistoryReader, HistoryUnreadableError

    try:
        with HistoryReader(folder / "telemetry.sqlite") as reader:
            reader.ranks()
    except HistoryUnreadableError as error:
        raise SummaryUnavailableError(str(error)) from error


def _require_history(folder: Path) -> None:
    if not is_there(folder / "telemetry.sqlite"):
        raise SummaryUnavailableError(f"{folder} holds no telemetry yet; errors.log in it may say why, else try again")


def _is_readable(data: bytes) -> bool:
    try:
        decode_summary(data)
    except UNDECODABLE:
        return False
    return True


def brief_of(folder: Path) -> RunBrief:
    """What the newest summary in the folder tells, without building one."""
    manifest = read_manifest(folder)
    if manifest is None:
        return RunBrief(run=folder.name, status="damaged", problem="manifest.json cannot be read")
    known = RunBrief(run=folder.name, status="running", name=manifest.name, started_at=manifest.started_at)
    for name in SUMMARY_FILES:
        try:
            data = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError:
            return msgspec.structs.replace(known, status="damaged", problem=f"{name} cannot be read")
        try:
            summary = decode_summary(data)
        except UNDECODABLE:
            if is_newer(data):
                return msgspec.structs.replace(known, status="newer", problem=f"{name} is of a newer TraceML")
            return msgspec.structs.replace(known, status="damaged", problem=f"{name} cannot be read")
        return _brief_by(summary, known, folder)
    return msgspec.structs.replace(known, status=_status_now(folder))


def _brief_by(summary: FinalSummary, known: RunBrief, folder: Path) -> RunBrief:
    issue, run = summary.primary_diagnosis, summary.run
    return msgspec.structs.replace(
        known,
        status=_status_now(folder) if run.status == "running" else run.status,
        kind=issue.kind,
        verdict=issue.label,
        severity=issue.severity,
        steps=run.steps,
        duration_s=run.duration_s,
    )


def is_going_on(folder: Path) -> bool:
    """Whether somebody may still be writing to this run: it has no readable account of its end, and its owner lives."""
    try:
        ended = decode_summary((folder / "final_summary.json").read_bytes()).run.status != "running"
    except (OSError, *UNDECODABLE):
        ended = False
    return not ended and _status_now(folder) == "running"


def is_newer(data: bytes) -> bool:
    """Whether this is a summary of a later schema than this version reads."""
    try:
        version = msgspec.json.decode(data, type=_Versioned).schema_version.split(".")[0]
    except UNDECODABLE:
        return False
    return version.isdecimal() and int(version) > int(SCHEMA_VERSION.split(".")[0])


class _Versioned(msgspec.Struct):
    """What every version of a summary begins with."""

    schema_version: str


def _status_now(folder: Path) -> str:
    """The status of a run without a final summary: running while its owner lives."""
    return "running" if owner_lives(read_manifest(folder), silent_s=silence_of(folder)) else "interrupted"
