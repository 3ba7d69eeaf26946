"""From a run folder with real rows to its summary: every fact, every situation, and what happens when a part fails."""

from __future__ import annotations

import os
import socket
import sqlite3
import tempfile
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_factory import GIB, HEALTHY_MS, make_run_folder
from validation import assert_valid_summary

from traceml_core.core.phases import Phase
from traceml_core.core.run_folder import (
    Ending,
    Manifest,
    Owner,
    OwnerError,
    RunFolder,
    open_run_folder,
    write_manifest,
)
from traceml_core.history.reader import HistoryUnreadableError
from traceml_core.loggers.error_log import close_error_log, open_error_log
from traceml_core.reporting import final
from traceml_core.reporting.card import render_card
from traceml_core.reporting.final import SECTIONS, build_summary, write_final
from traceml_core.reporting.verdict import verdict_of
from traceml_core.runtime.run_opening import tell_ending
from traceml_core.telemetry.messages import RunError

SLOW_LOADER_MS = {**HEALTHY_MS, Phase.INPUT_WAIT: 20.0}


def test_a_healthy_run_is_told_by_its_facts_and_fits_the_schema(tmp_path):
    folder = make_run_folder(tmp_path, steps=300, tokens=4096)
    summary = build_summary(folder)
    run = summary.run
    assert_valid_summary(summary)

    assert (run.name, run.run_id, run.status, run.error) == ("train-digits", folder.name, "completed", None)
    assert (run.framework, run.device, run.world_size, run.steps) == ("lightning", "cpu", 1, 300)
    assert (run.batch_size, run.loader.num_workers, run.hardware.cpus) == (32, 0, 4.0)
    assert run.hardware.memory_bytes == 16 * GIB
    assert run.started_at == "2026-01-01T12:00:00Z"
    assert run.duration_s == pytest.approx(0.42 + 300 * 0.0103, rel=0.02)
    assert run.samples_per_s == pytest.approx(32 / 0.0103, rel=0.02)
    assert run.tokens_per_s == pytest.approx(4096 / 0.0103, rel=0.02)
    assert list(summary.sections) == ["step_time", "step_memory", "process", "system"]
    assert all(issue.severity == "info" for section in summary.sections.values() for issue in section.issues)


def test_the_budget_accounts_for_the_wall_time_phase_by_phase(tmp_path):
    folder = make_run_folder(tmp_path, steps=300, phases_ms=SLOW_LOADER_MS, around_ms={Phase.VALIDATION: (100, 500.0)})
    budget = build_summary(folder).time_budget
    parts = {part.phase: part for part in budget.parts}

    assert list(parts) == [phase.key for phase in Phase]
    assert sum(part.seconds for part in budget.parts) == pytest.approx(budget.wall_s)
    assert sum(part.share for part in budget.parts) == pytest.approx(1.0)
    assert parts["input_wait"].seconds == pytest.approx(6.0, rel=0.02)
    assert parts["validation"].seconds == pytest.approx(1.5)
    assert parts["startup"].seconds == pytest.approx(0.4)
    assert (budget.clock, budget.coverage_share) == ("host", pytest.approx(1.0))


def test_time_that_no_row_accounts_for_lowers_the_coverage(tmp_path):
    folder = make_run_folder(tmp_path, steps=100, lost_ms=500.0)

    assert build_summary(folder).time_budget.coverage_share == pytest.approx(1 - 0.5 / 1.95, abs=0.01)


def test_a_phase_that_cannot_be_measured_is_null_and_its_time_unattributed(tmp_path):
    summary = build_summary(make_run_folder(tmp_path, steps=100, unmeasured=("optimizer",)))
    parts = {part.phase: part for part in summary.time_budget.parts}

    assert parts["optimizer"].seconds is None and parts["optimizer"].share is None
    assert parts["unattributed"].seconds == pytest.approx(0.09, rel=0.05)
    assert "optimizer_ms" not in summary.sections["step_time"].metrics
    assert_valid_summary(summary)


def test_a_slow_loader_is_the_primary_diagnosis_with_its_impact(tmp_path):
    summary = build_summary(make_run_folder(tmp_path, steps=200, phases_ms=SLOW_LOADER_MS))
    issue = summary.primary_diagnosis

    assert (issue.kind, issue.severity, issue.section) == ("INPUT_BOUND", "critical", "step_time")
    assert 0.5 < issue.impact_share < 0.7
    assert summary.sections["step_time"].diagnosis == issue
    assert summary.sections["step_time"].issues[0] == issue


def test_warm_up_steps_are_set_apart_and_marked_in_the_series(tmp_path):
    section = build_summary(make_run_folder(tmp_path, steps=200, warmup_steps=10)).sections["step_time"]

    assert section.warmup_steps == 10
    assert section.metrics["step_time_ms"].count == 190
    assert section.metrics["step_time_ms"].mean == pytest.approx(10.3, rel=0.02)
    assert [block.warmup for block in section.series[:12]] == [True] * 10 + [False] * 2
    assert sum(block.count for block in section.series) == 200


def test_a_long_run_has_at_most_a_thousand_blocks_in_its_series(tmp_path):
    series = build_summary(make_run_folder(tmp_path, steps=2_500)).sections["step_time"].series

    assert len(series) <= 1_000
    assert sum(block.count for block in series) == 2_500


def test_several_ranks_are_averaged_and_listed(tmp_path):
    folder = make_run_folder(tmp_path, steps=100, ranks=3, rank_phases_ms={2: {Phase.FORWARD: 8.0}})
    summary = build_summary(folder)
    forward = summary.sections["step_time"].metrics["forward_ms"]

    assert summary.run.world_size == 3
    assert [rank.rank for rank in summary.sections["step_time"].ranks] == [0, 1, 2]
    assert forward.mean == pytest.approx((4 + 4 + 8) / 3, rel=0.02)
    assert (forward.worst_rank, forward.worst_rank_mean) == (2, pytest.approx(8.0, rel=0.02))
    assert summary.telemetry.incarnations == 3
    assert_valid_summary(summary)


def test_steps_that_were_done_twice_count_once_and_their_time_is_accounted_for(tmp_path):
    summary = build_summary(make_run_folder(tmp_path, steps=200, restart_after=100, redone_steps=20))

    assert summary.run.steps == 200
    assert summary.run.status == "completed"
    assert summary.telemetry.incarnations == 2
    assert sum(block.count for block in summary.sections["step_time"].series) == 200
    assert summary.time_budget.wall_s == pytest.approx(2 * 0.4 + 0.02 + 220 * 0.0103, rel=0.02)
    assert summary.time_budget.coverage_share == pytest.approx(1.0)
    assert summary.telemetry.redone_steps == 20


def test_of_a_step_done_twice_the_later_one_counts_though_the_wall_clock_was_set_back_between(tmp_path):
    folders = [
        make_run_folder(tmp_path, steps=200, restart_after=100, redone_steps=20, restart_clock_s=later_s)
        for later_s in (1.0, -86_400.0)
    ]
    as_it_was, set_back = (build_summary(folder) for folder in folders)
    assert (set_back.run.status, set_back.telemetry.redone_steps) == ("completed", 20)
    assert set_back.sections["step_time"] == as_it_was.sections["step_time"]


def test_a_rank_that_never_said_how_it_ended_is_named(tmp_path):
    summary = build_summary(make_run_folder(tmp_path, ranks=3, unended=(1,)), status="completed")
    assert (summary.run.status, summary.telemetry.unended_ranks) == ("completed", [1])


def test_a_rank_that_died_is_what_a_run_failed_of_where_its_owner_outlived_it_to_say_so(tmp_path):
    path = make_run_folder(tmp_path, ranks=3, unended=(1,))
    error = OwnerError(rank=1, type="ActorDiedError", message="rank 1: killed")
    tell_ending(open_run_folder(path), Ending(status="failed", errors=(error,)))
    summary = build_summary(path, status="interrupted")
    assert (summary.run.status, summary.run.error.type, summary.run.error.message) == (
        "failed",
        "ActorDiedError",
        "rank 1: killed",
    )
    assert summary.telemetry.unended_ranks == [1]


def test_memory_of_process_workers_and_gpu_is_reduced(tmp_path):
    folder = make_run_folder(
        tmp_path, steps=300, device="cuda", workers_rss_bytes=lambda step: GIB, gpu_peak_bytes=lambda step: 3 * GIB
    )
    sections = build_summary(folder).sections

    assert sections["process"].metrics["rss_bytes"].max == pytest.approx(0.6 * GIB)
    assert sections["process"].metrics["workers_rss_bytes"].max == pytest.approx(GIB)
    assert sections["step_memory"].metrics["peak_allocated_bytes"].median == pytest.approx(3 * GIB, rel=0.01)
    assert sections["system"].metrics["host_cpu_percent"].mean == pytest.approx(40.0)


def test_a_failed_run_says_at_which_step_with_which_error(tmp_path):
    error = RunError("ValueError", "shapes do not match", 57, 1057)
    summary = build_summary(make_run_folder(tmp_path, steps=56, status="failed", error=error))

    assert summary.run.status == "failed"
    assert msgspec.structs.astuple(summary.run.error) == ("ValueError", "shapes do not match", 57, 1057)
    assert_valid_summary(summary)


def test_a_run_that_ended_before_its_first_step_still_has_a_summary(tmp_path):
    summary = build_summary(make_run_folder(tmp_path, steps=0, status="failed", error=RunError("KeyError")))
    assert_valid_summary(summary)

    assert summary.run.steps == 0
    assert summary.sections["step_time"].diagnosis.kind == "NO_DATA"
    assert summary.time_budget.wall_s == pytest.approx(0.42)
    assert summary.time_budget.coverage_share == pytest.approx(1.0)


def test_a_killed_run_is_interrupted_once_its_owner_is_gone(tmp_path):
    assert build_summary(make_run_folder(tmp_path, steps=50, status=None)).run.status == "interrupted"


def test_a_run_whose_owner_lives_is_running(tmp_path):
    assert build_summary(make_run_folder(tmp_path, steps=50, status=None, owner_lives=True)).run.status == "running"


def test_a_process_that_only_has_the_owners_number_is_not_the_owner(tmp_path):
    folder = make_run_folder(tmp_path, steps=50, status=None)
    owner = Owner(host=socket.gethostname(), pid=os.getpid(), birth="long ago")
    _give_owner(folder, owner)

    assert build_summary(folder).run.status == "interrupted"


ELSEWHERE = {
    "another host": Owner(host="elsewhere", pid=1, birth="long ago"),
    "another container": Owner(host=socket.gethostname(), pid=1, birth="long ago", pid_namespace="pid:[1]"),
}


@pytest.mark.parametrize("place", ELSEWHERE)
def test_an_owner_elsewhere_is_believed_while_its_ranks_are_heard(tmp_path, place):
    folder = make_run_folder(tmp_path, steps=50, status=None)
    _give_owner(folder, ELSEWHERE[place])

    assert build_summary(folder).run.status == "running"
    connection = sqlite3.connect(folder / "telemetry.sqlite")
    connection.execute("UPDATE ranks SET last_seen_unix_ns = last_seen_unix_ns - 60 * 1000000000")
    connection.commit()
    connection.close()
    assert build_summary(folder).run.status == "interrupted"


def test_whoever_knows_the_status_is_believed(tmp_path):
    folder = make_run_folder(tmp_path, steps=50, status=None, owner_lives=True)

    assert build_summary(folder, status="interrupted").run.status == "interrupted"


def test_losses_failures_and_overhead_are_told(tmp_path):
    folder = make_run_folder(tmp_path, steps=300, rows_dropped=7, failures={"system": 2})
    telemetry = build_summary(folder).telemetry

    assert telemetry.rows_lost == 7
    assert telemetry.rows_received > 300
    assert telemetry.failures == {"system": 2}
    assert telemetry.overhead_us_per_step == pytest.approx(9.0)
    assert telemetry.overhead_share == pytest.approx(9e-6 * 300 / 3.5, rel=0.05)
    assert telemetry.report_s is None


@pytest.mark.parametrize("broken", [spec.name for spec in SECTIONS])
@pytest.mark.parametrize("part", ["load", "build"])
def test_a_section_that_cannot_be_built_says_no_data_and_leaves_the_others(tmp_path, monkeypatch, broken, part):
    def explode(*_):
        raise ZeroDivisionError("planted")

    folder = make_run_folder(tmp_path, steps=120, phases_ms=SLOW_LOADER_MS)
    whole = build_summary(folder)
    open_error_log(folder / "errors.log")
    specs = tuple(
        msgspec.structs.replace(spec, **{part: explode}) if spec.name == broken else spec for spec in SECTIONS
    )
    monkeypatch.setattr(final, "SECTIONS", specs)
    try:
        summary = build_summary(folder)
    finally:
        close_error_log()
    assert_valid_summary(summary)

    assert summary.sections[broken].diagnosis.kind == "NO_DATA"
    assert summary.sections[broken].metrics == {}
    assert {name for name in summary.sections if summary.sections[name] == whole.sections[name]} >= (
        set(summary.sections) - {broken}
    )
    assert sum(summary.telemetry.failures.values()) == 1
    assert "planted" in (folder / "errors.log").read_text()


def test_a_history_without_some_tables_gives_no_data_there(tmp_path):
    folder = make_run_folder(tmp_path, steps=100)
    connection = sqlite3.connect(folder / "telemetry.sqlite")
    for table in ("process", "process_memory", "system", "gpu"):
        connection.execute(f"DROP TABLE {table}")
    connection.commit()
    connection.close()
    summary = build_summary(folder)

    assert summary.sections["process"].diagnosis.kind == "NO_DATA"
    assert summary.sections["system"].diagnosis.kind == "NO_DATA"
    assert summary.sections["step_time"].metrics["forward_ms"].mean == pytest.approx(4.0, rel=0.02)
    assert summary.telemetry.failures == {}


def test_without_a_manifest_the_folder_names_the_run(tmp_path):
    folder = make_run_folder(tmp_path, steps=20)
    (folder / "manifest.json").unlink()
    run = build_summary(folder).run

    assert (run.run_id, run.name, run.started_at) == (folder.name, folder.name, "2026-01-01T12:00:00Z")


def test_without_a_history_there_is_no_summary(tmp_path):
    with pytest.raises(HistoryUnreadableError):
        build_summary(make_run_folder(tmp_path, history=False))


def test_both_final_files_are_written_whole(tmp_path):
    folder = make_run_folder(tmp_path, steps=20)
    summary = build_summary(folder)
    write_final(folder, summary, "the card\n")

    assert_valid_summary(folder / "final_summary.json")
    assert (folder / "final_summary.txt").read_text() == "the card\n"
    assert not list(folder.glob(".*"))


def test_building_twice_gives_the_same_summary(tmp_path):
    folder = make_run_folder(tmp_path, steps=150, ranks=2)

    assert build_summary(folder) == build_summary(folder)


def test_the_live_summary_has_the_same_shape(tmp_path):
    folder = make_run_folder(tmp_path, steps=100, status=None, owner_lives=True)

    assert_valid_summary(build_summary(folder, live=True))


@settings(max_examples=40, deadline=None)
@given(
    steps=st.integers(0, 30),
    ranks=st.integers(1, 3),
    phases_ms=st.dictionaries(st.sampled_from(Phase), st.floats(0, 5)),
    unmeasured=st.sets(st.sampled_from(["optimizer", "grad_sync", "h2d", "forward"])),
    samples=st.none() | st.integers(0, 64),
    status=st.sampled_from(["completed", "failed", "interrupted", None]),
    error=st.none() | st.builds(RunError, type=st.text(max_size=20), message=st.none() | st.text(max_size=40)),
    warmup_steps=st.integers(0, 5),
)
def test_whatever_a_run_was_like_its_summary_fits_the_schema_and_its_parts_fit_the_wall(**plan):
    with tempfile.TemporaryDirectory() as folder:
        plan["unmeasured"] = tuple(plan["unmeasured"])
        summary = build_summary(make_run_folder(Path(folder), **plan))
    assert_valid_summary(summary)

    assert summary.telemetry.failures == {}
    assert sum(part.seconds or 0 for part in summary.time_budget.parts) <= summary.time_budget.wall_s * 1.0001
    assert render_card(summary) and verdict_of(summary).metrics is not None


@pytest.mark.slow
def test_the_report_of_100_000_rank_steps_takes_at_most_a_second(tmp_path):
    folder = make_run_folder(tmp_path, steps=25_000, ranks=4)
    build_summary(make_run_folder(tmp_path, steps=20))
    spent_s = []
    for _ in range(3):
        began = time.process_time()
        build_summary(folder)
        spent_s.append(time.process_time() - began)

    assert min(spent_s) <= 1.0


def _give_owner(folder: Path, owner: Owner) -> None:
    manifest = Manifest(run_id=folder.name, name="x", started_at="2026-01-01T12:00:00Z", labels={}, owner=owner)
    write_manifest(RunFolder(folder, folder.name, "x"), manifest)
