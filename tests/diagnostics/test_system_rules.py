from __future__ import annotations

import numpy as np
import pytest
from factories import START_NS, gpu_rows, join, run_of, step_memory_rows, step_rows, system_rows, tables_of

from traceml_core.diagnostics.system.api import diagnose
from traceml_core.diagnostics.system.context import build_context
from traceml_core.diagnostics.system.policy import LIVE_SYSTEM_POLICY, SUMMARY_SYSTEM_POLICY

HOT = {"temperature_c": 88.0, "power_w": 695.0}


def judge(system=None, gpu=None, device="cuda", steps=None, policy=SUMMARY_SYSTEM_POLICY, memory=None, run=None):
    tables = {"system": system or {}, "gpu": gpu or {}, "step_time": steps or {}, "step_memory": memory or {}}
    return diagnose(build_context(tables_of(tables), run or run_of(device=device), policy), policy)


def kinds(diagnosis):
    return [issue.kind for issue in diagnosis.issues]


def test_a_host_with_room_left_is_normal():
    assert judge(system_rows(), gpu_rows()).primary.kind == "NORMAL"


@pytest.mark.parametrize(
    ("system", "gpu", "kind", "severity"),
    [
        ({"memory_gib": 15.0}, {}, "HIGH_HOST_MEMORY", "warning"),
        ({"memory_gib": 15.9}, {}, "HIGH_HOST_MEMORY", "critical"),
        ({"host_cpu_percent": 98.0}, {}, "HIGH_HOST_CPU", "warning"),
        ({}, {"used_gib": 79.0}, "HIGH_GPU_MEMORY", "warning"),
        ({}, {"temperature_c": 88.0}, "HIGH_GPU_TEMPERATURE", "warning"),
        ({}, {"temperature_c": 88.0, "temperature_limit_c": None}, "HIGH_GPU_TEMPERATURE", "warning"),
        ({}, {"power_w": 695.0}, "HIGH_GPU_POWER", "info"),
        ({}, {"throttle_reasons": 0x40}, "GPU_THROTTLED", "warning"),
        ({}, {"utilization": 12.0}, "LOW_GPU_UTILIZATION", "warning"),
    ],
)
def test_what_is_too_high_or_too_low_is_reported_with_its_severity(system, gpu, kind, severity):
    primary = judge(system_rows(**system), gpu_rows(**gpu)).primary
    assert (primary.kind, primary.severity, primary.impact_share) == (kind, severity, None)


@pytest.mark.parametrize(
    ("system", "gpu"),
    [
        ({"memory_gib": 14.0}, {}),
        ({"host_cpu_percent": 90.0}, {}),
        ({}, {"used_gib": 76.0}),
        ({}, {"temperature_c": 85.0}),
        ({}, {"power_w": 600.0}),
        ({}, {"throttle_reasons": 0x4}),
        ({}, {"throttle_reasons": np.where(np.arange(20) == 3, 0x40, 0)}),
        ({}, {"utilization": 50.0}),
    ],
)
def test_what_is_in_range_is_not_reported(system, gpu):
    assert judge(system_rows(**system), gpu_rows(**gpu)).primary.kind == "NORMAL"


@pytest.mark.parametrize(
    ("system", "gpu", "signal"),
    [
        ({"memory_gib": None}, {}, "the host's memory"),
        ({"limit_gib": None}, {}, "the host's memory"),
        ({"host_cpu_percent": None}, {}, "the host's CPU load"),
        ({}, {"used_gib": None}, "the GPU's memory"),
        ({}, {"temperature_c": None}, "the GPU's temperature"),
        ({}, {"power_limit_w": None}, "the GPU's power"),
        ({}, {"throttle_reasons": None}, "the GPU's clocks"),
        ({}, {"utilization": None}, "the GPU's utilisation"),
    ],
)
def test_what_was_not_measured_is_named(system, gpu, signal):
    primary = judge(system_rows(**system), gpu_rows(**gpu)).primary
    assert (primary.kind, primary.evidence["missing"]) == ("INCOMPLETE_DATA", [signal])


def test_a_host_without_gpus_misses_nothing():
    assert judge(system_rows(), device="cpu").primary.kind == "NORMAL"


def test_busy_cpus_are_info_where_the_cpu_is_the_device():
    primary = judge(system_rows(host_cpu_percent=99.0), device="cpu").primary
    assert (primary.kind, primary.severity) == ("HIGH_HOST_CPU", "info")


def test_an_idle_gpu_that_nobody_trains_on_is_not_reported():
    assert judge(system_rows(), gpu_rows(utilization=0.0), device="cpu").primary.kind == "NORMAL"


def test_throttling_supersedes_heat_and_power():
    found = judge(system_rows(), gpu_rows(throttle_reasons=0x20, **HOT))
    assert kinds(found) == ["GPU_THROTTLED"]
    assert kinds(judge(system_rows(), gpu_rows(**HOT))) == ["HIGH_GPU_TEMPERATURE", "HIGH_GPU_POWER"]


def test_all_at_once_stand_in_their_order():
    found = judge(
        system_rows(memory_gib=15.9, host_cpu_percent=99.0),
        gpu_rows(utilization=5.0, used_gib=79.5, throttle_reasons=0x8, **HOT),
    )
    assert kinds(found) == [
        "HIGH_HOST_MEMORY",
        "GPU_THROTTLED",
        "HIGH_GPU_MEMORY",
        "LOW_GPU_UTILIZATION",
        "HIGH_HOST_CPU",
    ]


def test_the_worst_gpu_is_named():
    rows = join(gpu_rows(), gpu_rows(gpu_index=1, utilization=3.0), gpu_rows(gpu_index=2, utilization=9.0))
    assert judge(system_rows(), rows).primary.evidence["gpu_index"] == 1


IDLE = {"utilization": 0.0, "used_gib": 79.0, "throttle_reasons": 0x40}
UNUSED_BESIDE_USED = join(gpu_rows(), gpu_rows(gpu_index=1, **IDLE))


def test_a_gpu_that_no_rank_of_its_host_names_is_not_judged():
    steps = step_rows(2_000)
    run = run_of(steps, device="cuda")
    memory = step_memory_rows(count=2_000)
    assert judge(system_rows(), UNUSED_BESIDE_USED, steps=steps, memory=memory, run=run).primary.kind == "NORMAL"
    named = step_memory_rows(count=2_000, device_index=1)
    found = judge(system_rows(), UNUSED_BESIDE_USED, steps=steps, memory=named, run=run)
    assert found.primary.evidence["gpu_index"] == 1


def test_where_no_rank_names_its_gpu_as_many_as_there_are_ranks_are_judged():
    one, two = step_rows(2_000), join(step_rows(2_000), step_rows(2_000, rank=1))
    alone = judge(system_rows(), UNUSED_BESIDE_USED, steps=one, run=run_of(one, device="cuda"))
    assert alone.primary.kind == "NORMAL"
    both = judge(system_rows(), UNUSED_BESIDE_USED, steps=two, run=run_of(two, device="cuda"))
    assert "LOW_GPU_UTILIZATION" in kinds(both)


def test_gpus_are_named_a_host_at_a_time():
    steps = join(step_rows(2_000), step_rows(2_000, rank=1))
    run = run_of(steps, device="cuda", hosts={0: "a", 1: "b"})
    gpus = join(UNUSED_BESIDE_USED, gpu_rows(rank=1, **IDLE), gpu_rows(gpu_index=1, rank=1))
    memory = join(step_memory_rows(count=2_000), step_memory_rows(count=2_000, rank=1, device_index=1))
    assert judge(system_rows(), gpus, steps=steps, memory=memory, run=run).primary.kind == "NORMAL"


def test_a_few_looks_are_no_basis():
    assert judge(system_rows(3, host_cpu_percent=99.0), gpu_rows(3, utilization=0.0)).primary.kind == "NORMAL"
    seven = (system_rows(7, host_cpu_percent=99.0), gpu_rows(7))
    assert judge(*seven).primary.kind == "HIGH_HOST_CPU"
    assert judge(*seven, policy=LIVE_SYSTEM_POLICY).primary.kind == "NORMAL"


def test_only_training_is_judged():
    steps = step_rows(1_000, startup_ms=9_500.0)
    idle_at_first = np.where(np.arange(20) < 9, 0.0, 80.0)
    assert judge(system_rows(), gpu_rows(utilization=idle_at_first), steps=steps).primary.kind == "NORMAL"
    assert int(steps["started_ns"][1]) == START_NS + 9_500_000_000


def test_no_rows_are_no_data():
    assert judge().primary.kind == "NO_DATA"


def test_metrics_are_reduced():
    tables = {"system": system_rows(host_cpu_percent=40.0), "gpu": gpu_rows(utilization=70.0)}
    context = build_context(tables_of(tables), run_of(), SUMMARY_SYSTEM_POLICY)
    assert context.metrics["host_cpu_percent"].mean == 40.0
    assert context.metrics["gpu_utilization_percent"].median == pytest.approx(70.0, rel=0.01)
    assert set(context.metrics) == {
        "host_cpu_percent",
        "host_memory_bytes",
        "gpu_utilization_percent",
        "gpu_memory_used_bytes",
        "gpu_temperature_c",
        "gpu_power_w",
    }
