"""Whole Accelerate runs, with their runtime, aggregator and report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate_loops import Model, make_loader, train_epoch, wait
from waiting import LIMIT_S, wait_for

from traceml_core.reporting.summary import FinalSummary, decode_summary
from traceml_hf.accelerate import TraceMLCallback

REPOSITORY = Path(__file__).parents[3]
EXAMPLES = REPOSITORY / "examples" / "accelerate"
SCRIPT = """
import sys, patience, torch
sys.path.insert(0, {helpers!r})
from accelerate import Accelerator
from accelerate_loops import Model, make_loader, train_epoch
from traceml_hf.accelerate import TraceMLCallback

patience.wait_patiently()
accelerator = Accelerator(cpu=True)
TraceMLCallback(run_dir="run").attach(accelerator)
model = Model(forward_s=0.002)
prepared = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01), make_loader(count=80))

def after_step(number):
    {after_step}

train_epoch(accelerator, *prepared, after_step=after_step)
print("trained")
"""


def read_summary(folder: Path) -> FinalSummary:
    return decode_summary((folder / "final_summary.json").read_bytes())


def run(*command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def run_script(folder: Path, after_step: str = "pass", **environment: str) -> subprocess.CompletedProcess[str]:
    script = folder / "train.py"
    script.write_text(SCRIPT.format(helpers=str(Path(__file__).parent), after_step=after_step))
    return run(str(script), folder=folder, **environment)


@pytest.mark.flaky(reruns=2)
def test_a_block_ends_with_a_report_that_accounts_for_its_whole_time(accelerator, tmp_path, capsys):
    model = Model(forward_s=0.05)
    began = time.perf_counter()
    with TraceMLCallback(run_dir=str(tmp_path / "run"), report="full").attach(accelerator):
        model, optimizer, loader = accelerator.prepare(
            model, torch.optim.SGD(model.parameters(), lr=0.01), make_loader(count=400)
        )
        train_epoch(accelerator, model, optimizer, loader)
    wall_s = time.perf_counter() - began
    summary = read_summary(tmp_path / "run")
    assert (summary.run.framework, summary.run.status, summary.run.steps) == ("accelerate", "completed", 100)
    assert (summary.run.batch_size, summary.run.accumulation) == (4, 1)
    covered_s = summary.time_budget.wall_s * summary.time_budget.coverage_share
    assert covered_s + summary.telemetry.report_s >= 0.99 * wall_s
    assert summary.primary_diagnosis.kind == "COMPUTE_BOUND"
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "COMPUTE BOUND" in captured.err.upper()


def test_the_weights_are_those_of_a_training_without_the_callback(accelerator, tmp_path):
    trained = []
    for enabled in (False, True):
        torch.manual_seed(0)
        model = Model()
        with TraceMLCallback(run_dir=str(tmp_path / "run"), enabled=enabled, report="off").attach(accelerator):
            model, optimizer, loader = accelerator.prepare(
                model, torch.optim.Adam(model.parameters()), make_loader(shuffle=True)
            )
            for _ in range(2):
                train_epoch(accelerator, model, optimizer, loader)
        trained.append(model.state_dict())
    without, with_callback = trained
    assert all(torch.equal(without[name], with_callback[name]) for name in without)


@pytest.mark.slow
def test_accelerate_launch_runs_the_example_and_its_stdout_is_untouched(tmp_path):
    pytest.importorskip("sklearn")
    launch = "-m", "accelerate.commands.launch", "--config_file", str(EXAMPLES / "single.yaml")
    script = str(EXAMPLES / "train.py"), "--epochs", "1"
    recorded = run(*launch, *script, folder=tmp_path)
    plain = run(*script, folder=tmp_path, TRACEML_DISABLED="1")
    assert recorded.returncode == 0, recorded.stderr
    assert recorded.stdout == plain.stdout != ""
    (folder,) = (tmp_path / "traceml_runs").glob("*-train-*")
    wait_for((folder / "final_summary.json").exists)
    summary = read_summary(folder)
    assert (summary.run.status, summary.run.steps) == ("completed", 51)
    assert summary.time_budget.coverage_share >= 0.99


@pytest.mark.slow
def test_the_end_of_the_process_closes_a_run_that_nobody_closed(tmp_path):
    done = run_script(tmp_path)
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
    assert (read_summary(tmp_path / "run").run.status, read_summary(tmp_path / "run").run.steps) == ("completed", 20)


@pytest.mark.slow
def test_an_error_ends_the_run_as_failed_and_its_traceback_is_unchanged(tmp_path):
    fail = "if number == 4: raise ValueError('no such label')"
    recorded = run_script(tmp_path, fail)
    plain = run_script(tmp_path, fail, TRACEML_DISABLED="1")
    assert plain.stderr.strip()
    assert plain.stderr in recorded.stderr
    assert recorded.returncode == plain.returncode == 1
    error = read_summary(tmp_path / "run").run.error
    assert (error.type, error.message, error.step) == ("ValueError", "no such label", 5)
    assert read_summary(tmp_path / "run").run.status == "failed"


@pytest.mark.slow
def test_ctrl_c_ends_the_run_as_interrupted(tmp_path):
    done = run_script(tmp_path, "if number == 4: import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    assert done.returncode in (130, -signal.SIGINT)
    assert read_summary(tmp_path / "run").run.status == "interrupted"


def test_a_loop_that_calls_backward_itself_is_judged_by_what_was_measured(accelerator, tmp_path):
    model = Model(forward_s=0.01)
    with TraceMLCallback(run_dir=str(tmp_path / "run")).attach(accelerator):
        model, optimizer, loader = accelerator.prepare(
            model, torch.optim.SGD(model.parameters(), lr=0.01), make_loader(count=200)
        )
        for number, (inputs, classes) in enumerate(loader):
            if number == 0:
                wait(0.5)  # by now the start-up record is on its way: it cannot know of a backward that is to come
            torch.nn.functional.cross_entropy(model(inputs), classes).backward()
            optimizer.step()
            optimizer.zero_grad()
    summary = read_summary(tmp_path / "run")
    assert summary.telemetry.failures == {}
    assert summary.run.steps == 50
    assert "backward_ms" not in summary.sections["step_time"].metrics
    assert (summary.primary_diagnosis.kind, summary.primary_diagnosis.evidence["phase"]) == ("COMPUTE_BOUND", "forward")
