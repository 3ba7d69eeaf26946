"""Ranks that train together under gloo: a late one is named with its cause, and none where all are equal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import LIMIT_S

from traceml_core.reporting.summary import FinalSummary, decode_summary

SCRIPTS = Path(__file__).parent / "stragglers"
EQUAL_RUNS = int(os.environ.get("TRACEML_TEST_EQUAL_RUNS", "1"))  # `tox -e stragglers` does twenty
KINDS = {
    "input_wait": "INPUT_STRAGGLER",
    "h2d": "H2D_STRAGGLER",
    "forward": "COMPUTE_STRAGGLER",
    "backward": "COMPUTE_STRAGGLER",
}
LAUNCHES = [("lightning", "own"), ("lightning", "torchrun"), ("hf", "torchrun"), ("accelerate", "torchrun")]


def train(framework: str, launcher: str, folder: Path, *causes: str, ranks: int = 2) -> dict[str, FinalSummary]:
    """Start the script as a user would; the summary of each of its trainings."""
    pytest.importorskip({"lightning": "lightning", "hf": "transformers", "accelerate": "accelerate"}[framework])
    by = [] if launcher == "own" else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run(
        [sys.executable, *by, str(SCRIPTS / f"{framework}_train.py"), *causes],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=2 * LIMIT_S,  # four trainings
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {cause: decode_summary((folder / cause / "final_summary.json").read_bytes()) for cause in causes}


def stragglers(summary: FinalSummary) -> list[str]:
    return [issue.kind for issue in summary.sections["step_time"].issues if "STRAGGLER" in issue.kind]


@pytest.mark.slow
@pytest.mark.parametrize(("framework", "launcher"), LAUNCHES)
def test_the_late_rank_is_named_with_its_cause(framework, launcher, tmp_path):
    for cause, summary in train(framework, launcher, tmp_path, *KINDS).items():
        primary = summary.primary_diagnosis
        assert (primary.kind, primary.ranks) == (KINDS[cause], (1,)), (cause, primary)
        assert (primary.evidence["phase"], primary.evidence["pattern"]) == (cause, "chronic")
        apart_ms = primary.evidence["worst_rank_ms"][cause] - primary.evidence["other_ranks_ms"][cause]
        assert apart_ms == pytest.approx(40, abs=8)
        # What a busy machine takes from the other rank is no lag of this one, and makes its steps longer.
        assert 25 <= primary.evidence["lag_ms"] <= 60
        interval_ms = summary.sections["step_time"].metrics["step_interval_ms"].mean
        assert primary.impact_share == pytest.approx(primary.evidence["lag_ms"] / interval_ms, rel=0.1)
        assert stragglers(summary) == [KINDS[cause]]
        assert summary.sections["step_time"].metrics[f"{cause}_ms"].worst_rank == 1


@pytest.mark.slow
def test_a_straggler_that_changes_from_step_to_step_is_rotating(tmp_path):
    primary = train("accelerate", "torchrun", tmp_path, "rotating", ranks=4)["rotating"].primary_diagnosis
    assert (primary.kind, sorted(primary.ranks)) == ("COMPUTE_STRAGGLER", [0, 1, 2, 3])
    assert (primary.evidence["phase"], primary.evidence["pattern"]) == ("forward", "rotating")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(EQUAL_RUNS))
def test_equal_ranks_have_no_straggler(number, tmp_path):
    framework, launcher = LAUNCHES[-1 - number % len(LAUNCHES)]
    summary = train(framework, launcher, tmp_path, "equal")["equal"]
    assert stragglers(summary) == []
    assert summary.run.world_size == 2
