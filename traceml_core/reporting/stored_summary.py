"""The summary of a run that lies in a folder: read where it was written, built from the rows where it was not."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from traceml_core.core.run_folder import read_manifest
from traceml_core.core.units import MISSING, seconds
from traceml_core.reporting.owner import owner_lives
from traceml_core.reporting.summary import FinalSummary, decode_summary


class SummaryUnavailableError(Exception):
    """There is no summary to be had; the message says why, and what to do."""


class RunBrief(msgspec.Struct, frozen=True):
    """A run in three words, as a list shows it."""

    status: str
    verdict: str
    duration: str


def read_summary(path: Path) -> FinalSummary:
    """The summary in a file.

    Raises:
        SummaryUnavailableError: it is missing, or none of this schema version.
    """
    try:
        return decode_summary(path.read_bytes())
    except OSError as error:
        raise SummaryUnavailableError(f"{path} cannot be read ({error.strerror}); name a run folder") from error
    except msgspec.MsgspecError as error:
        raise SummaryUnavailableError(
            f"{path} is no summary that this version reads ({error}); run `traceml report --rebuild` on its folder"
        ) from error


def load_summary(folder: Path, *, rebuild: bool = False) -> FinalSummary:
    """The final summary of a run; built from its history where there is none yet, or where `rebuild` asks for it.

    Of a run that has ended the final files are then written, where the folder can be written to.

    Raises:
        SummaryUnavailableError: there is neither a readable summary nor a history.
    """
    final = folder / "final_summary.json"
    if final.exists() and not rebuild:
        return read_summary(final)
    if not (folder / "telemetry.sqlite").exists():
        raise SummaryUnavailableError(f"{folder} holds no telemetry yet; errors.log in it may say why, else try again")
    from traceml_core.history.reader import HistoryUnreadableError
    from traceml_core.reporting.card import render_card
    from traceml_core.reporting.final import build_summary, write_final

    try:
        summary = build_summary(folder)
    except HistoryUnreadableError as error:
        raise SummaryUnavailableError(str(error)) from error
    if summary.run.status != "running":
        try:
            write_final(folder, summary, render_card(summary, folder=str(folder)))
            (folder / "live_summary.json").unlink(missing_ok=True)  # it says 'running', which is no longer true
        except OSError:
            return summary  # a folder of somebody else's: the summary is shown all the same
    return summary


def brief_of(folder: Path) -> RunBrief:
    """Status, verdict and duration as the newest summary in the folder tells them, without building one."""
    for name in ("final_summary.json", "live_summary.json"):
        try:
            summary = decode_summary((folder / name).read_bytes())
        except (OSError, msgspec.MsgspecError):
            continue
        status = _status_now(folder) if summary.run.status == "running" else summary.run.status
        return RunBrief(status, summary.primary_diagnosis.label, seconds(summary.run.duration_s))
    return RunBrief(_status_now(folder), MISSING, MISSING)


def _status_now(folder: Path) -> str:
    """The status of a run without a final summary: running while its owner lives."""
    written_s = [path.stat().st_mtime for path in folder.glob("telemetry.sqlite*")]
    silent_s = time.time() - max(written_s, default=0.0)
    return "running" if owner_lives(read_manifest(folder), silent_s=silent_s) else "interrupted"
