from __future__ import annotations

import numpy as np
import pytest
from factories import join, run_of, step_memory_rows, step_rows, tables_of

from traceml_core.diagnostics.step_memory.api import diagnose
from traceml_core.diagnostics.step_memory.context import build_context
from traceml_core.diagnostics.step_memory.policy import SUMMARY_STEP_MEMORY_POLICY as POLICY

LEAK_GIB = 10 + np.arange(200) * 0.05


def judge(*parts, device="cuda"):
    steps = join(*(step_rows(200, rank=rank) for rank in range(max(len(parts), 1))))
    tables = {"step_memory": join(*parts), "step_time": steps} if parts else {}
    return diagnose(build_context(tables_of(tables), run_of(steps, device=device), POLICY), POLICY)


def kinds(diagnosis):
    return [issue.kind for issue in diagnosis.issues]


def test_steady_memory_with_room_is_normal():
    assert judge(step_memory_rows()).primary.kind == "NORMAL"


def test_memory_that_grows_with_every_step_is_creep_and_critical_where_it_is_soon_full():
    issue = judge(step_memory_rows(LEAK_GIB, peak_gib=LEAK_GIB + 10)).primary
    assert (issue.kind, issue.severity) == ("GPU_MEMORY_CREEP", "critical")
    assert issue.risk.steps_left == pytest.approx((80 - 29.95) / 0.05, rel=0.02)


def test_creep_without_a_known_size_is_a_warning_without_risk():
    issue = judge(step_memory_rows(LEAK_GIB, total_gib=None)).primary
    assert (issue.kind, issue.severity, issue.risk) == ("GPU_MEMORY_CREEP", "warning", None)


def test_memory_that_varies_with_the_batch_is_no_creep():
    random = np.random.default_rng(0)
    assert judge(step_memory_rows(10 + random.random(200) * 20)).primary.kind == "NORMAL"


def test_creep_supersedes_pressure():
    found = judge(step_memory_rows(60 + np.arange(200) * 0.05, peak_gib=75.0))
    assert kinds(found) == ["GPU_MEMORY_CREEP"]


def test_a_full_device_is_pressure():
    assert judge(step_memory_rows(peak_gib=75.0, reserved_gib=78.0)).primary.kind == "GPU_MEMORY_PRESSURE"


def test_pressure_abstains_where_the_devices_size_is_not_known():
    primary = judge(step_memory_rows(peak_gib=75.0, total_gib=None)).primary
    assert (primary.kind, primary.evidence["missing"]) == ("INCOMPLETE_DATA", ["the size of the device's memory"])


def test_retries_after_the_first_steps_are_reported_and_supersede_pressure():
    retries = np.where(np.arange(200) > 50, 3, 1)
    found = judge(step_memory_rows(peak_gib=75.0, retries=retries))
    assert kinds(found) == ["ALLOCATOR_RETRIES"]
    assert found.primary.evidence["retries"] == 2


def test_retries_before_training_are_not():
    assert judge(step_memory_rows(retries=4)).primary.kind == "NORMAL"


def test_a_restart_does_not_hide_a_leak():
    leak = 10 + np.arange(130) * 0.05
    again = step_memory_rows(leak, count=130, first_step=131, incarnation=2)
    steps = join(step_rows(130), step_rows(130, incarnation=2, first_step=131))
    tables = {"step_memory": join(step_memory_rows(leak, count=130), again), "step_time": steps}
    found = diagnose(build_context(tables_of(tables), run_of(steps, device="cuda"), POLICY), POLICY)
    assert kinds(found) == ["GPU_MEMORY_CREEP"]


def test_retries_of_all_lives_add_up():
    first = step_memory_rows(count=100, retries=3 + np.maximum(np.arange(100) - 49, 0))
    then = step_memory_rows(count=100, first_step=101, incarnation=2, retries=np.arange(100) > 95)
    found = judge(join(first, then))
    assert kinds(found) == ["ALLOCATOR_RETRIES"]
    assert found.primary.evidence["retries"] == 51


def test_retries_lose_to_creep():
    retries = np.where(np.arange(200) > 50, 3, 1)
    found = judge(step_memory_rows(LEAK_GIB, retries=retries))
    assert kinds(found) == ["GPU_MEMORY_CREEP", "ALLOCATOR_RETRIES"]


def test_ranks_that_differ_are_an_imbalance():
    primary = judge(step_memory_rows(peak_gib=60.0), step_memory_rows(peak_gib=30.0, rank=1)).primary
    assert (primary.kind, primary.ranks) == ("GPU_MEMORY_IMBALANCE", (0,))
    even = judge(step_memory_rows(peak_gib=60.0), step_memory_rows(peak_gib=55.0, rank=1))
    assert even.primary.kind == "NORMAL"
    small = judge(step_memory_rows(peak_gib=2.0), step_memory_rows(peak_gib=1.0, rank=1))
    assert small.primary.kind == "NORMAL"


def test_an_imbalance_loses_to_pressure():
    found = judge(step_memory_rows(peak_gib=75.0), step_memory_rows(peak_gib=30.0, rank=1))
    assert kinds(found) == ["GPU_MEMORY_PRESSURE", "GPU_MEMORY_IMBALANCE"]


def test_a_cpu_has_no_device_memory():
    found = judge(device="cpu")
    assert (found.primary.kind, found.primary.severity) == ("NO_GPU", "info")


def test_a_gpu_without_rows_is_no_data():
    assert judge(device="cuda").primary.kind == "NO_DATA"
    assert judge(device=None).primary.kind == "NO_DATA"


def test_a_step_done_twice_counts_as_it_was_done_last():
    tables = {"step_memory": join(step_memory_rows(count=50), step_memory_rows(count=50, peak_gib=30.0))}
    context = build_context(tables_of(tables), run_of(device="cuda"), POLICY)
    assert context.metrics["peak_allocated_bytes"].count == 50
    assert context.metrics["peak_allocated_bytes"].mean == 30 * 2**30
