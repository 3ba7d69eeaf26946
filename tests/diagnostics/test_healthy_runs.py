"""Whatever a healthy run looks like, nothing of warning or worse is said of it."""

from __future__ import annotations

import numpy as np
import pytest
from factories import memory_rows, owner_rows, process_rows, run_of, step_rows, system_rows, tables_of
from hypothesis import given, settings
from hypothesis import strategies as st

from traceml_core.diagnostics.process import api as process_api
from traceml_core.diagnostics.process import context as process_context
from traceml_core.diagnostics.process.policy import LIVE_PROCESS_POLICY, SUMMARY_PROCESS_POLICY
from traceml_core.diagnostics.step_time import api as step_time_api
from traceml_core.diagnostics.step_time import context as step_time_context
from traceml_core.diagnostics.step_time.policy import LIVE_STEP_TIME_POLICY, SUMMARY_STEP_TIME_POLICY
from traceml_core.telemetry.facts import LoaderFacts

POLICIES = [
    (SUMMARY_STEP_TIME_POLICY, SUMMARY_PROCESS_POLICY),
    (LIVE_STEP_TIME_POLICY, LIVE_PROCESS_POLICY),
]


def one_off(random, count, largest_ms, times=1):
    values = np.zeros(count)
    values[random.integers(0, count, times)] = random.uniform(0, largest_ms)
    return values


def noisy(random, mean_ms, count, noise):
    """Times as a busy machine gives them: even, with some steps that were interrupted."""
    even = mean_ms * np.exp(random.normal(0, noise, count))
    return even + (random.random(count) < 0.03) * random.exponential(2 * mean_ms, count)


@pytest.mark.parametrize("policies", POLICIES, ids=["summary", "live"])
@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    count=st.integers(30, 600),
    step_ms=st.floats(2.0, 400.0),
    noise=st.floats(0.0, 0.4),
    startup_ms=st.floats(0, 120_000),
    workers=st.sampled_from([0, 2, 4]),
    first_ms=st.floats(0, 5_000),
    seed=st.integers(0, 2**31),
)
def test_a_healthy_run_has_nothing_of_warning_or_worse(
    policies, count, step_ms, noise, startup_ms, workers, first_ms, seed
):
    random = np.random.default_rng(seed)
    split = random.dirichlet([4, 4, 1]) * 0.9 * step_ms
    phases = dict(zip(("forward_ms", "backward_ms", "optimizer_ms"), split, strict=True))
    phases = {name: noisy(random, value, count, noise) for name, value in phases.items()}
    phases["forward_ms"][0] += first_ms
    bursts = (np.arange(count) % max(workers, 1) == 0) * max(workers, 1)
    steps = step_rows(
        count,
        startup_ms=startup_ms,
        input_wait_ms=noisy(random, 0.03 * step_ms, count, noise) * bursts + one_off(random, count, 900.0),
        h2d_ms=0.05,
        unattributed_ms=noisy(random, 0.04 * step_ms, count, noise),
        callbacks_ms=noisy(random, 0.02 * step_ms, count, noise) + one_off(random, count, 800.0),
        logging_ms=one_off(random, count, 300.0, 2),
        loader_start_ms=np.where(np.arange(count) == 0, random.uniform(0, 3_000), 0.0),
        validation_ms=one_off(random, count, 800.0),
        checkpoint_ms=one_off(random, count, 900.0),
        **phases,
    )
    callbacks = float(np.nansum(steps["callbacks_ns"])) / 1e6
    tables = {
        "step_time": steps,
        "owner_time": owner_rows(("callbacks", "Bar", callbacks, float(steps["callbacks_ns"].max()) / 1e6, count)),
        "system": system_rows(host_cpu_percent=float(random.uniform(0, 100))),
        "process": process_rows(float(random.uniform(0, 800))),
        "process_memory": memory_rows(healthy_memory(random, count)),
    }
    run = run_of(steps, loader=LoaderFacts(num_workers=workers))
    step_policy, process_policy = policies
    reduced_tables = tables_of(tables)
    found = [
        step_time_api.diagnose(step_time_context.build_context(reduced_tables, run, step_policy), step_policy),
        process_api.diagnose(process_context.build_context(reduced_tables, run, process_policy), process_policy),
    ]
    assert [issue for one in found for issue in one.issues if issue.severity != "info"] == []
    assert found[0].primary.kind in ("COMPUTE_BOUND", "WARMUP")


def healthy_memory(random, count):
    """Memory that settles, jumps once, and has its ups and downs."""
    t = np.linspace(0, 1, max(count // 10, 20))
    settling = random.uniform(0, 300) * (1 - np.exp(-t / random.uniform(0.02, 0.15)))
    jump = random.uniform(0, 300) * (t > random.random())
    return random.uniform(300, 3_000) + settling + jump + random.exponential(random.uniform(0.1, 8), t.size)
