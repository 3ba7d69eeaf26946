"""Two nodes of two ranks each, over a network of their own: the aggregator is where the others reach it."""

from __future__ import annotations

import re

import pytest
from network import hosts
from rank_jobs import FITS, TORCHRUN, begin, wait_all

pytestmark = pytest.mark.slow
PORT = "29511"


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """What came of the job."""
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("nodes")
    with hosts(2) as nodes:
        master = ("--master-addr", nodes[0].address, "--master-port", PORT)
        processes = []
        for number, node in enumerate(nodes):
            command = (*node.inside, *TORCHRUN, "--nnodes=2", "--nproc-per-node=2", f"--node-rank={number}", *master)
            variables = {"GLOO_SOCKET_IFNAME": node.interface, "FITS_RANKS": "4"}
            processes.append(begin((*command, FITS, "accelerate", "torchrun", "both"), folder, variables))
        yield wait_all(processes, folder)


def test_one_report_holds_all_ranks_of_both_nodes(job):
    assert job.recorded_ranks("both") == [0, 1, 2, 3]
    run = job.summary("both").run
    assert (run.status, run.world_size, run.nodes, run.steps) == ("completed", 4, 2, 40)


def test_only_global_rank_0_speaks(job):
    assert len(re.findall("TraceML: recording to", job.stderr)) == 1
    assert len(re.findall("Where the time went", job.stderr)) == 1
    assert "found no run to join" not in job.stderr
