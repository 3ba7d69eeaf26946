"""Whatever starts the ranks: one aggregator a job, every rank in its report, one card."""

from __future__ import annotations

import sys

import pytest
from rank_jobs import FITS, TORCHRUN, begin, kept_port, launch, wait_all

pytestmark = pytest.mark.slow

ON_TWO = (*TORCHRUN, "--standalone", "--nproc-per-node=2")


@pytest.fixture
def launched(tmp_path):
    """Runs a command in the test's folder."""
    return lambda *command: launch(command, tmp_path)


def assert_whole(launched, case: str = "both") -> None:
    """One run, with all steps of both ranks in it."""
    assert launched.recorded_ranks(case) == [0, 1]
    run = launched.summary(case).run
    assert (run.status, run.world_size, run.nodes, run.steps) == ("completed", 2, 1, 40)


def assert_said_once(stderr: str, times: int = 1) -> None:
    """`times` runs: the line at the start and the card at the end of each are there once, and nothing else is said."""
    assert stderr.count("TraceML: recording to") == times, stderr
    assert stderr.count("Where the time went") + stderr.count("TraceML: ") - times == times, stderr


def test_lightning_with_ranks_that_are_forked_then_spawned(launched):
    pytest.importorskip("lightning")
    done = launched(sys.executable, FITS, "lightning", "ddp_fork,ddp_spawn", "both", "both_again")
    for case in ("both", "both_again"):
        assert_whole(done, case)
        assert done.waits_for_others(case)
    assert_said_once(done.stderr, times=2)


def test_torchrun_with_lightning(launched):
    pytest.importorskip("lightning")
    done = launched(*ON_TWO, FITS, "lightning", "ddp", "both")
    assert_whole(done)
    assert_said_once(done.stderr)


def test_slurm_with_lightning(tmp_path):
    pytest.importorskip("lightning")
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    job |= {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1"}
    command = (sys.executable, FITS, "lightning", "ddp", "both")
    ranks = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in (0, 1)]
    with kept_port() as port:
        job["MASTER_PORT"] = str(port)
        done = wait_all([begin(command, tmp_path, {**job, **rank}) for rank in ranks], tmp_path)
    assert_whole(done)
    assert_said_once(done.stderr)
    assert done.summary("both").run.labels == {"slurm_job_id": "4711"}


def test_torchrun_with_trainer(launched):
    pytest.importorskip("transformers")
    done = launched(*ON_TWO, FITS, "hf", "torchrun", "both", "rank_1_only", "both_again")
    assert_whole(done)
    assert_whole(done, "both_again")
    assert done.waits_for_others("both")
    assert done.runs("rank_1_only") == []
    assert_said_once(done.stderr.replace(FOUND_NONE, ""), times=2)


def test_a_loop_of_ones_own_under_torchrun(launched, tmp_path):
    (tmp_path / "loop.py").write_text(LOOP)
    done = launched(*ON_TWO, "loop.py")
    for case in ("before", "after"):
        assert_whole(done, case)
    assert_said_once(done.stderr, times=2)


FOUND_NONE = "TraceML: rank 1 found no run to join and is not recorded; rank 0 needs a TraceMLCallback that is on\n"
LOOP = """
import os, pathlib, time
import patience
import torch
from traceml_core.sdk import trace_run

patience.wait_patiently()
RANK = int(os.environ["RANK"])

def meet(what):
    pathlib.Path(f"{what}-{RANK}").touch()
    while not pathlib.Path(f"{what}-{1 - RANK}").exists():
        time.sleep(0.01)

def train(case):
    # A run of this length is over before a late rank could join it, and its report does not wait long for the others.
    meet(f"{case}-begins")
    with trace_run(runs_dir=f"runs/{case}") as run:
        for batch in run.batches(range(40)):
            with run.step():
                time.sleep(0.005)
        while run._session._runtime.has_ticket is None:
            time.sleep(0.01)
        meet(f"{case}-is-joined")
        if RANK == 0:
            meet(f"{case}-ends")
    if RANK == 1:
        meet(f"{case}-ends")

train("before")
torch.distributed.init_process_group("gloo")
train("after")
torch.distributed.destroy_process_group()
"""
