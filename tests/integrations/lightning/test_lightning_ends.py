"""What Lightning does after its last hook is a part of the account, however the fit ends."""

from __future__ import annotations

import time

import lightning as pl
import pytest
import torch._dynamo  # noqa: F401  Lightning 2.2 loads it in the first fit, before any sign of a run: docs/compatibility.md
from lightning_models import Plain, loader, trainer, wait

from traceml_core.sdk import trace_run

END_MS = 150.0
loggers = pl.pytorch.loggers


class SlowEnd(pl.Callback):
    """Its teardown comes after ours."""

    def teardown(self, trainer, pl_module, stage):
        wait(END_MS)


class SlowToFinalize(loggers.CSVLogger):
    def finalize(self, status):
        wait(END_MS)
        super().finalize(status)


class Fails(Plain):
    def training_step(self, batch, batch_idx):
        if batch_idx == 250:
            raise ValueError("no such label")
        return super().training_step(batch, batch_idx)


def fitted(ready, module, data):
    """Seconds around `fit`, by a clock of our own."""
    began = time.perf_counter()
    try:
        ready.fit(module, data)
    except ValueError:
        assert isinstance(module, Fails)
    return time.perf_counter() - began


def accounted_s(run):
    budget = run.summary.time_budget
    return budget.wall_s * budget.coverage_share + run.summary.telemetry.report_s


def profilers():
    return {"stock": None, "simple": pl.pytorch.profilers.SimpleProfiler()}


@pytest.mark.flaky(reruns=2)
@pytest.mark.parametrize("profiler", profilers())
def test_the_teardown_of_other_callbacks_is_counted(profiler, runs_dir, recorded):
    ready = trainer(runs_dir, SlowEnd(), profiler=profilers()[profiler])
    before = ready.profiler
    around_s = fitted(ready, Plain(forward_ms=9), loader(250))
    run = recorded()
    assert accounted_s(run) >= 0.99 * around_s
    assert run.owners["callbacks", "SlowEnd"] >= END_MS
    assert ready.profiler is before


@pytest.mark.flaky(reruns=2)
def test_with_a_logger_the_account_ends_before_the_logger_does(runs_dir, recorded, tmp_path):
    logger = SlowToFinalize(tmp_path, name="one", version=0)
    ready = trainer(runs_dir, SlowEnd(), logger=logger)
    around_s = fitted(ready, Plain(forward_ms=9), loader(250))
    run = recorded()
    assert accounted_s(run) + END_MS / 1e3 >= 0.99 * around_s
    assert accounted_s(run) <= around_s - END_MS / 1e3
    assert run.owners["callbacks", "SlowEnd"] >= END_MS
    assert "traceml/step_time_ms" in (tmp_path / "one" / "version_0" / "metrics.csv").read_text()


@pytest.mark.flaky(reruns=2)
def test_results_that_go_to_no_logger_leave_its_end_in_the_account(runs_dir, recorded, tmp_path):
    logger = SlowToFinalize(tmp_path, name="one", version=0)
    ready = trainer(runs_dir, logger=logger, settings={"trackers": False})
    around_s = fitted(ready, Plain(forward_ms=9), loader(250))
    assert accounted_s(recorded()) >= 0.99 * around_s


@pytest.mark.flaky(reruns=2)
def test_a_fit_that_raises_is_accounted_for_up_to_the_error(runs_dir, recorded):
    around_s = fitted(trainer(runs_dir), Fails(forward_ms=9), loader(400))
    run = recorded()
    assert (run.summary.run.status, run.summary.run.steps) == ("failed", 250)
    assert accounted_s(run) >= 0.99 * around_s


def test_two_fits_in_a_run_of_somebody_else_are_both_told(runs_dir, recorded):
    with trace_run(runs_dir=str(runs_dir), report="off"):
        for _ in range(2):
            trainer(runs_dir).fit(Plain(forward_ms=2), loader(4))
    run = recorded()
    assert list(run.steps["step"]) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (run.steps["forward_ns"] >= 2e6).all()
