"""A report that fails in part says what it has; one that fails altogether says so and where to look."""

from __future__ import annotations

import os
import time

import pytest
from telemetry_factory import make_batch, make_finish, make_identity, make_step_row

from traceml_core.aggregator.display_drivers.selection import driver_for
from traceml_core.aggregator.display_drivers.summary import SummaryDriver
from traceml_core.aggregator.reports import Reports
from traceml_core.core.run_folder import RunFolder
from traceml_core.history.writer import HistoryWriter
from traceml_core.loggers.error_log import FAILURES, close_error_log, open_error_log
from traceml_core.reporting.summary import decode_summary
from traceml_core.runtime.sampler_registry import row_types


@pytest.fixture
def folder(tmp_path):
    close_error_log()  # forgets the failures of other tests
    open_error_log(tmp_path / "errors.log")
    writer = HistoryWriter(tmp_path / "telemetry.sqlite", row_types())
    writer.hello(make_identity(), 5)
    writer.write(make_batch(1, [make_step_row(step) for step in range(1, 101)]))
    writer.close()
    yield RunFolder(tmp_path, "id", "name")
    close_error_log()


@pytest.fixture
def reports(folder):
    return Reports(folder, SummaryDriver(folder))


def final(reports, request):
    return reports.final("completed", request, time.monotonic(), lambda: None)


def broken(*args, **kwargs):
    raise OSError(28, "No space left on device")


def test_the_live_summary_is_over_once_the_final_one_is_in_place(reports, folder):
    verdict = reports.live()
    assert decode_summary(folder.live_summary.read_bytes()).run.status == "running"
    report = final(reports, make_finish())
    assert verdict is not None
    assert report.verdict is not None
    assert decode_summary(folder.final_summary_json.read_bytes()).run.status == "completed"
    assert not folder.live_summary.exists()
    assert not FAILURES


def test_the_written_text_is_plain_whatever_the_terminal_is(reports, folder):
    report = final(reports, make_finish(color=True, columns=200))
    text = folder.final_summary_text.read_text()
    assert "\x1b[" in report.card
    assert "\x1b[" not in text


def test_a_report_that_is_off_is_written_and_not_shown(reports, folder):
    assert final(reports, make_finish(style="off")).card == ""
    assert folder.final_summary_json.exists()


def test_a_report_that_cannot_be_kept_is_shown_all_the_same(reports, folder, monkeypatch):
    monkeypatch.setattr("traceml_core.reporting.final.write_atomic", broken)
    card = final(reports, make_finish()).card
    assert "100 steps" in card
    assert f"could not be kept in {folder.path} (No space left on device)" in card
    assert "[TraceML] writing the final report failed" in folder.errors_log.read_text()


def test_a_card_that_cannot_be_drawn_leaves_the_diagnosis(reports, folder, monkeypatch):
    monkeypatch.setattr("traceml_core.reporting.card.render_card", broken)
    report = final(reports, make_finish())
    primary = decode_summary(folder.final_summary_json.read_bytes()).primary_diagnosis
    assert report.card == f"TraceML: {primary.label}. {primary.summary} {primary.action}\n"
    assert report.verdict is not None


def test_a_report_that_cannot_be_built_says_where_the_rows_and_the_reason_are(reports, folder, monkeypatch):
    monkeypatch.setattr("traceml_core.reporting.final.build_summary", broken)
    report = final(reports, make_finish())
    assert report.verdict is None
    assert f"what was recorded is in {folder.path}" in report.card
    assert f"`traceml report {folder.path}` tries again" in report.card
    assert "[TraceML] building the final report failed" in folder.errors_log.read_text()


def test_a_live_summary_that_cannot_be_built_or_shown_costs_the_run_nothing(reports, folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("traceml_core.aggregator.display_drivers.summary.write_atomic", broken)
        assert reports.live() is not None
    monkeypatch.setattr("traceml_core.reporting.final.build_summary", broken)
    assert reports.live() is None
    assert FAILURES["reports"] == 2


def test_the_reports_time_counts_from_the_end_of_measuring(reports, folder):
    began_ns = time.monotonic_ns()
    final(reports, make_finish(ended_ns=began_ns - 3 * 10**9))
    most_s = 3 + (time.monotonic_ns() - began_ns) / 1e9
    assert 3 <= decode_summary(folder.final_summary_json.read_bytes()).telemetry.report_s <= most_s


def test_without_a_common_clock_the_reports_time_counts_from_when_it_was_asked_for(reports, folder):
    asked_s = time.monotonic() - 2
    reports.final("completed", make_finish(), asked_s, lambda: None)
    most_s = time.monotonic() - asked_s
    assert 2 <= decode_summary(folder.final_summary_json.read_bytes()).telemetry.report_s <= most_s


def test_the_files_stand_whole_when_the_report_is_told_and_the_disk_is_waited_for_afterwards(
    reports, folder, monkeypatch
):
    synced = set()
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
    report = final(reports, make_finish())
    assert folder.final_summary_text.read_text() == report.card
    assert decode_summary(folder.final_summary_json.read_bytes()).run.steps == 100
    assert synced == set()
    reports.settle()
    files = folder.history, folder.final_summary_text, folder.final_summary_json
    assert synced == {path.stat().st_ino for path in files}


def test_settling_a_folder_that_its_owner_has_tidied_away_is_no_failure(reports, folder):
    final(reports, make_finish())
    folder.final_summary_json.unlink()
    reports.settle()
    assert not FAILURES


def test_a_mode_without_a_display_falls_back_to_the_summary_and_errors_log_says_so(folder):
    assert isinstance(driver_for("summary", folder), SummaryDriver)
    assert not folder.errors_log.exists()
    assert isinstance(driver_for("no-such-mode", folder), SummaryDriver)
    assert "[TraceML] mode 'no-such-mode' has no display of its own" in folder.errors_log.read_text()


def test_what_a_display_says_rides_on_the_live_verdict(folder):
    class Talkative(SummaryDriver):
        def show(self, summary):
            super().show(summary)
            return f"{summary.run.steps} steps"

    assert Reports(folder, Talkative(folder)).live().line == "100 steps"
    assert Reports(folder, SummaryDriver(folder)).live().line is None


def test_with_the_setting_html_the_report_is_written_as_a_page_too(folder):
    report = final(Reports(folder, SummaryDriver(folder), html=True), make_finish())

    assert folder.final_summary_html.read_text().startswith("<!doctype html>")
    assert "final_summary.html" not in report.card
    assert not FAILURES


def test_without_the_extra_the_card_says_that_there_is_no_page_and_all_else_is_there(folder, monkeypatch):
    from traceml_core.reporting.html import page

    monkeypatch.setattr(page, "PAGE", ("no_such_module",))
    report = final(Reports(folder, SummaryDriver(folder), html=True), make_finish())

    assert report.card.count("final_summary.html") == 1
    assert "pip install 'traceml-callbacks[dashboard]'" in report.card
    assert not folder.final_summary_html.exists()
    assert folder.final_summary_json.exists()
    assert not FAILURES


def test_a_page_that_cannot_be_drawn_takes_nothing_else_with_it(folder, monkeypatch):
    from traceml_core.reporting.html import page

    monkeypatch.setattr(page, "page_view", broken)
    report = final(Reports(folder, SummaryDriver(folder), html=True), make_finish())

    assert "no final_summary.html was written (No space left on device)" in report.card
    assert folder.final_summary_json.exists()
