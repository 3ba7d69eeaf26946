"""A callback on some ranks only harms nobody: training ends, as fast as ever, with the same weights."""

from __future__ import annotations

import sys

import pytest
from rank_jobs import FITS, kept_port, launch_watched

pytestmark = pytest.mark.slow

CASES = ("rank_0_only", "rank_1_only", "disabled_on_0", "disabled_on_1", "both_again")
# `--cpu` would silently start one process.
ACCELERATE_LAUNCH = (sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu")
LAUNCHERS = {
    "lightning": (sys.executable, FITS, "lightning", "ddp"),
    "accelerate": (*ACCELERATE_LAUNCH, "--num_processes=2", "--main_process_port={port}", FITS, "accelerate", "launch"),
}
# What the design lets TraceML add to a short run; the limits that ranks wait for each other by are far above it. Of
# the time in which nobody does anything, that is: how fast those work who do is the machine's.
ADDED_S = 1.5


@pytest.fixture(scope="module", params=sorted(LAUNCHERS))
def watched(request, tmp_path_factory):
    """Trainings with and without, in the same two processes; the first of all pays for what is loaded."""
    pytest.importorskip(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    with kept_port() as port:  # Accelerate 0.34 takes the port 0 by its word, and waits there for ever
        launcher = [part.format(port=port) for part in LAUNCHERS[request.param]]
        return launch_watched((*launcher, "both", "plain", *CASES), folder)


@pytest.fixture
def fits(watched):
    return watched[0]


@pytest.mark.parametrize("case", CASES)
def test_training_ends_with_the_same_weights_and_in_the_usual_time(watched, case):
    fits, own_time = watched
    plain, told = fits.of("plain"), fits.of(case)
    assert [one.rank for one in told] == [0, 1]
    assert {one.weights for one in told} == {one.weights for one in plain}
    for with_it, without in zip(told, plain, strict=True):
        slept_s, usual_s = (own_time.slept_between(one.began_s, one.ended_s) for one in (with_it, without))
        assert slept_s - usual_s < ADDED_S


@pytest.mark.parametrize("case", ["rank_0_only", "disabled_on_1"])
def test_the_report_of_rank_0_alone_says_who_is_missing(fits, case):
    summary = fits.summary(case)
    assert fits.recorded_ranks(case) == [0]
    assert (summary.run.status, summary.run.world_size, summary.run.steps) == ("completed", 2, 40)
    assert "rank 1 was not recorded" in (fits.runs(case)[0] / "final_summary.txt").read_text()


@pytest.mark.parametrize("case", ["rank_1_only", "disabled_on_0"])
def test_without_rank_0_there_is_no_run_and_one_line(fits, case):
    assert fits.runs(case) == []
    assert fits.stderr.count("TraceML: rank 1 found no run to join and is not recorded") == 2


def test_ranks_that_sat_out_runs_are_together_in_the_next(fits):
    for case in ("both", "both_again"):
        assert fits.recorded_ranks(case) == [0, 1]


def test_ranks_are_not_taken_for_loader_workers(fits):
    assert fits.most_workers("both") == 0
