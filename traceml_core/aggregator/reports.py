"""Builds the live and the final report of one run, on the report thread; what fails leaves a sentence, not a hole."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from traceml_core.aggregator.display_drivers.base import DisplayDriver
from traceml_core.core.atomic_files import sync, write_atomic
from traceml_core.core.run_folder import RunFolder
from traceml_core.loggers.error_log import fail_open, get_error_logger, report_failure
from traceml_core.telemetry.messages import Finish, Report, RunStatus, Verdict

if TYPE_CHECKING:
    from traceml_core.reporting.summary import FinalSummary

TEXT_COLUMNS = 80

_logger = get_error_logger("reports")


class Reports:
    """The reports of one run. Every method may take long, and none raises."""

    def __init__(self, folder: RunFolder, driver: DisplayDriver, html: bool = False) -> None:
        """Report on the run in `folder`; `driver` shows the live summaries. `html`: write the report as a page too."""
        self._html = html
        self._folder = folder
        self._driver = driver
        self._has_drawn = False
        self._is_synced = True

    def warm_up(self) -> None:
        """Import what reports need (numpy, rich), so that no rank waits for it."""
        with fail_open(_logger, "loading the report"):
            import traceml_core.reporting.card
            import traceml_core.reporting.final
            import traceml_core.reporting.verdict  # noqa: F401

            if self._html:
                import traceml_core.reporting.html.page  # noqa: F401

            gc.freeze()  # what was loaded stays: no search for garbage in it holds up a report

    def live(self) -> Verdict | None:
        """Show the summary so far; its verdict, or None where there is none yet."""
        with fail_open(_logger, "building the live summary"):
            from traceml_core.reporting.final import build_summary
            from traceml_core.reporting.verdict import verdict_of

            summary = build_summary(self._folder.path, status="running", live=True)
            line = None
            with fail_open(_logger, "showing the live summary"):
                line = self._driver.show(summary)
            if not self._has_drawn:
                self._has_drawn = True
                self._card(summary, None)  # for nobody: the first one takes longer, and training waits for the last
            return msgspec.structs.replace(verdict_of(summary), line=line)
        return None

    def final(self, status: RunStatus, request: Finish | None, asked_s: float, on_read: Callable[[], None]) -> Report:
        """Build and write the final summary; the card as `request` wants it drawn, and the verdict.

        It was asked for at `asked_s` (monotonic), where `request` does not say since when training waits for it.
        `on_read` is called once the history has been read.
        """
        self._is_synced = False
        try:
            summary = self._build(status, on_read)
        except Exception as error:  # noqa: BLE001 - the edge of the whole report: a sentence takes its place
            report_failure(_logger, "building the final report", error)
            return Report(self._not_built(error), None)
        text = card = ""
        verdict = None
        with fail_open(_logger, "drawing the card"):
            text = self._card(summary, None)
            card = text if request is None or _is_plain(request) else self._card(summary, request)
        with fail_open(_logger, "telling the verdict"):
            from traceml_core.reporting.verdict import verdict_of

            verdict = verdict_of(summary)
        waits_since_s = asked_s if request is None or request.ended_ns is None else request.ended_ns / 1e9
        unwritten = self._write_page(summary) if self._html else ""
        unwritten += self._write(summary, text or self._plain(summary), waits_since_s)
        if request is not None and request.style != "off":
            card = (card or self._plain(summary)) + unwritten
        return Report(card, verdict)

    def settle(self) -> None:
        """Have the disk hold history and final files: training does not wait for that."""
        if not self._is_synced:
            self._is_synced = True
            folder = self._folder
            for path in (folder.history, folder.final_summary_text, folder.final_summary_json):
                with suppress(OSError):  # the owner may have tidied the folder away
                    sync(path)

    def _build(self, status: RunStatus, on_read: Callable[[], None]) -> FinalSummary:
        from traceml_core.reporting.final import build_summary

        summary: FinalSummary = build_summary(self._folder.path, status=status, on_read=on_read)
        return summary

    def _write(self, summary: FinalSummary, text: str, waits_since_s: float) -> str:
        """Write the final files; the line that says so where they could not be written."""
        try:
            from traceml_core.reporting.final import write_final_json, write_final_text

            write_final_text(self._folder.path, text, synced=False)
            write_final_json(self._folder.path, _with_report_time(summary, waits_since_s), synced=False)
            self._driver.close()
        except Exception as error:  # noqa: BLE001 - the card is still printed
            report_failure(_logger, "writing the final report", error)
            return f"TraceML: the report could not be kept in {self._folder.path} ({_reason(error)}).\n"
        return ""

    def _write_page(self, summary: FinalSummary) -> str:
        """Write the report as a page; the line that says so where that cannot be."""
        from traceml_core.reporting.html.page import PageUnavailableError, render_report

        try:
            write_atomic(self._folder.final_summary_html, render_report(summary).encode(), synced=False)
        except PageUnavailableError as error:
            return f"TraceML: no final_summary.html was written: {error}.\n"
        except Exception as error:  # noqa: BLE001 - the other files are written all the same
            report_failure(_logger, "writing the page", error)
            return f"TraceML: no final_summary.html was written ({_reason(error)}); errors.log says why.\n"
        return ""

    def _card(self, summary: FinalSummary, request: Finish | None) -> str:
        from traceml_core.reporting.card import render_card

        folder = str(self._folder.path)
        if request is None:
            return render_card(summary, columns=TEXT_COLUMNS, color=False, folder=folder)
        return render_card(summary, columns=request.columns, color=request.color, style=request.style, folder=folder)

    def _plain(self, summary: FinalSummary) -> str:
        """The diagnosis alone: what is said where the card cannot be drawn."""
        issue = summary.primary_diagnosis
        return f"TraceML: {issue.label}. {issue.summary} {issue.action}\n"

    def _not_built(self, error: Exception) -> str:
        recorded = "what was recorded is in"
        with suppress(OSError):
            if not self._folder.history.is_file():
                recorded = "nothing is left of what was recorded in"
        return (
            f"TraceML: the report could not be built ({_reason(error)}); {recorded} {self._folder.path}.\n"
            f"errors.log there says why; `traceml report {self._folder.path}` tries again.\n"
        )


def _is_plain(request: Finish) -> bool:
    """Whether the card is wanted as the text file has it."""
    return (request.style, request.columns, request.color) == ("full", TEXT_COLUMNS, False)


def _with_report_time(summary: FinalSummary, since_s: float) -> FinalSummary:
    """The summary with what its run has waited for it: for the last rows to be stored, and for the report."""
    spent = msgspec.structs.replace(summary.telemetry, report_s=round(time.monotonic() - since_s, 5))
    return msgspec.structs.replace(summary, telemetry=spent)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
