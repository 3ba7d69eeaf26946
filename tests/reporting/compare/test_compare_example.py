"""The workflow in examples/ci: its comparing step, done with real run folders."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from run_factory import HEALTHY_MS, make_run_folder

from traceml_core.core.phases import Phase

REPOSITORY = Path(__file__).parents[3]
WORKFLOW = (REPOSITORY / "examples" / "ci" / "compare.yml").read_text()


def comparing_step() -> str:
    """The script of the step 'Compare'."""
    after = WORKFLOW.split("- name: Compare\n", 1)[1].split("run: |\n", 1)[1]
    return textwrap.dedent(after.split("\n\n", 1)[0])


def test_the_workflow_fails_on_a_regression_and_leaves_a_comment(tmp_path):
    for number in range(1, 6):
        for side, forward_ms in (("before", 4.0), ("after", 6.0)):
            folder = make_run_folder(tmp_path / "made", steps=40, phases_ms={**HEALTHY_MS, Phase.FORWARD: forward_ms})
            (tmp_path / "runs").mkdir(exist_ok=True)
            folder.rename(tmp_path / "runs" / f"{side}-{number}")
    command = tmp_path / "bin" / "traceml"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m traceml_core "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", comparing_step()], cwd=tmp_path, env=environment, capture_output=True, text=True
    )

    assert done.returncode == 1, done.stderr
    assert (tmp_path / "comparison.md").read_text().startswith("### TraceML: REGRESSION")
