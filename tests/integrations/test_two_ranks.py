"""Two training processes on one machine end with one report for both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LIGHTNING = """
import sys
sys.path.insert(0, {helpers!r})
from lightning_models import Plain, loader, trainer

if __name__ == "__main__":
    trainer("runs", devices=2, strategy="ddp").fit(Plain(forward_ms=3), loader(40))
"""
TRAINER = """
import sys
from pathlib import Path
sys.path.insert(0, {helpers!r})
from trainer_models import Samples, Tiny, trainer

trainer(Path.cwd(), model=Tiny(forward_ms=3), data=Samples(80)).train()
"""


def run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_lightnings_own_launcher_gives_one_report_for_both_ranks(tmp_path, runs_dir, recorded):
    pytest.importorskip("lightning")
    (tmp_path / "train.py").write_text(LIGHTNING.format(helpers=str(HERE / "lightning")))
    run([sys.executable, "train.py"], tmp_path)
    _is_whole(recorded())


@pytest.mark.slow
def test_torchrun_gives_one_report_for_both_ranks_of_a_trainer(tmp_path, runs_dir, recorded):
    pytest.importorskip("transformers")
    (tmp_path / "train.py").write_text(TRAINER.format(helpers=str(HERE / "hf")))
    run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py"], tmp_path)
    _is_whole(recorded())


def _is_whole(run) -> None:
    assert sorted(set(run.steps["rank"])) == [0, 1]
    assert run.summary.run.world_size == 2
    assert len(run.ranks) == 2
    assert run.summary.run.steps == 20
    assert run.steps["grad_sync_ns"].sum() > 0
