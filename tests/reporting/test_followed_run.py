"""A run followed by its folder: what state it is in, by what lies there and who lives."""

from __future__ import annotations

import pytest
from run_factory import make_run_folder
from summary_factory import make_summary

from traceml_core.core.atomic_files import write_atomic
from traceml_core.reporting.followed_run import REPORT_GRACE_S, FollowedRun
from traceml_core.reporting.owner import SILENT_AFTER_S
from traceml_core.reporting.stored_summary import SummaryUnavailableError
from traceml_core.reporting.summary import FinalSummary, encode_summary


class Clock:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def put(folder, name: str, summary: FinalSummary) -> None:
    write_atomic(folder / name, encode_summary(summary), synced=False)


@pytest.fixture
def clock():
    return Clock(1_000.0)


def test_a_run_is_running_before_its_first_summary_and_grows_stale_until_the_next(tmp_path, clock):
    folder = make_run_folder(tmp_path, owner_lives=True, history=False)
    followed = FollowedRun(folder, clock)
    assert (followed.look().state, followed.look().summary) == ("running", None)
    for name in ("first", "second"):
        clock.now_s += 5
        put(folder, "live_summary.json", make_summary(status="running", name=name))
        assert followed.look().age_s == 0
        clock.now_s += 2
        sighting = followed.look()
        assert (sighting.state, sighting.age_s) == ("running", 2)
        assert sighting.summary.run.name == name


def test_the_final_summary_ends_it_whether_or_not_the_live_one_is_still_there(tmp_path):
    folder = make_run_folder(tmp_path, owner_lives=True, history=False)
    followed = FollowedRun(folder)
    put(folder, "live_summary.json", make_summary(status="running"))
    put(folder, "final_summary.json", make_summary(name="final"))
    for _ in range(2):
        sighting = followed.look()
        assert (sighting.state, sighting.summary.run.name) == ("ended", "final")
        (folder / "live_summary.json").unlink(missing_ok=True)


def test_without_its_owner_a_run_that_has_just_spoken_is_ending_and_in_the_end_lost(tmp_path, clock):
    folder = make_run_folder(tmp_path, steps=20, status=None)
    written_s = (folder / "telemetry.sqlite").stat().st_mtime
    followed = FollowedRun(folder, clock, unix_s=lambda: written_s + 1)
    assert followed.look().state == "ending"
    clock.now_s += REPORT_GRACE_S - 0.1
    assert followed.look().state == "ending"
    clock.now_s += 0.1
    assert followed.look().state == "lost"


def test_without_its_owner_a_run_that_has_long_been_silent_is_lost_at_once(tmp_path):
    folder = make_run_folder(tmp_path, steps=20, status=None)
    written_s = (folder / "telemetry.sqlite").stat().st_mtime
    assert FollowedRun(folder, unix_s=lambda: written_s + SILENT_AFTER_S).look().state == "lost"


@pytest.mark.parametrize("name", ["live_summary.json", "final_summary.json"])
def test_a_summary_that_cannot_be_read_is_said(tmp_path, name):
    folder = make_run_folder(tmp_path, owner_lives=True, history=False)
    (folder / name).write_bytes(b"{")
    with pytest.raises(SummaryUnavailableError, match=name):
        FollowedRun(folder).look()
