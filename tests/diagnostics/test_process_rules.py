from __future__ import annotations

import numpy as np
import pytest
from factories import (
    START_NS,
    join,
    memory_rows,
    process_rows,
    run_of,
    step_memory_rows,
    step_rows,
    system_rows,
    tables_of,
)

from traceml_core.diagnostics.process.api import diagnose
from traceml_core.diagnostics.process.context import build_context
from traceml_core.diagnostics.process.policy import LIVE_PROCESS_POLICY, SUMMARY_PROCESS_POLICY

FLAT = np.full(60, 500.0)
LEAK = 500 + np.arange(60) * 3.0


def judge(memory=None, process=None, system=None, step_memory=None, policy=SUMMARY_PROCESS_POLICY, ranks=1, **facts):
    tables = {"process_memory": memory, "process": process, "system": system, "step_memory": step_memory}
    run = run_of(join(*(step_rows(10, rank=rank) for rank in range(ranks))), **facts)
    given = {name: table for name, table in tables.items() if table is not None}
    return diagnose(build_context(tables_of(given), run, policy), policy)


def kinds(diagnosis):
    return [issue.kind for issue in diagnosis.issues]


def test_a_healthy_process_is_normal():
    diagnosis = judge(memory_rows(FLAT), process_rows(), system_rows())
    assert (diagnosis.primary.kind, diagnosis.issues) == ("NORMAL", ())


def test_a_leak_is_creep_with_its_pace_and_the_steps_that_are_left():
    issue = judge(memory_rows(LEAK), process_rows(), system_rows(memory_gib=4, limit_gib=16)).primary
    assert (issue.kind, issue.severity) == ("HOST_MEMORY_CREEP", "critical")
    assert issue.impact_share is None
    assert issue.risk.limit_bytes == 16 * 2**30
    assert issue.risk.steps_left == pytest.approx(12 * 2**30 / (0.3 * 2**20), rel=0.02)
    assert "a step" in issue.summary
    assert issue.ranks == (0,)


def test_a_leak_that_will_not_end_the_run_soon_is_a_warning():
    rows = memory_rows(LEAK, steps=np.arange(60), every_s=1.0)
    issue = judge(rows, process_rows(), system_rows(memory_gib=4, limit_gib=512)).primary
    assert (issue.kind, issue.severity) == ("HOST_MEMORY_CREEP", "warning")


def test_a_leak_without_a_known_limit_has_no_risk():
    issue = judge(memory_rows(LEAK), process_rows()).primary
    assert (issue.kind, issue.severity, issue.risk) == ("HOST_MEMORY_CREEP", "warning", None)


def test_a_leak_in_the_loaders_workers_is_told_apart():
    rows = memory_rows(FLAT, workers=2, workers_mebibytes=LEAK)
    issue = judge(rows, process_rows(), system_rows()).primary
    assert issue.evidence["where"] == "workers"
    assert "the loader's workers" in issue.summary
    assert judge(memory_rows(LEAK, workers=2, workers_mebibytes=FLAT)).primary.evidence["where"] == "main"


def test_workers_that_start_and_end_are_no_creep():
    workers = np.repeat([0, 2, 4, 0, 2, 4], 10)
    rows = memory_rows(FLAT, workers=workers, workers_mebibytes=np.where(workers, workers * 240.0, np.nan))
    assert judge(rows, process_rows(), system_rows()).primary.kind == "NORMAL"


def test_pages_of_mapped_files_are_no_creep():
    mapped = (LEAK - 500) * 2**20
    diagnosis = judge(memory_rows(LEAK, mapped_file_bytes=mapped), process_rows(), system_rows())
    assert diagnosis.primary.kind == "NORMAL"


def test_the_ranks_that_creep_are_named():
    rows = join(memory_rows(FLAT), memory_rows(LEAK, rank=1))
    assert judge(rows, join(process_rows(), process_rows(rank=1)), system_rows(), ranks=2).primary.ranks == (1,)


def test_creep_supersedes_high_memory_unless_that_is_worse():
    full = system_rows(memory_gib=4, limit_gib=0.75)
    assert kinds(judge(memory_rows(LEAK), process_rows(), full)) == ["HOST_MEMORY_CREEP"]
    slow = memory_rows(np.linspace(960, 1000, 60), steps=np.arange(60) * 2 + 1, every_s=60.0)
    tight = judge(slow, process_rows(), system_rows(memory_gib=0.0, limit_gib=1.0, cpus=8.0))
    assert [issue.severity for issue in tight.issues] == ["critical"]


def test_processes_close_to_the_limit_are_high_process_memory():
    held = memory_rows(FLAT, workers=2, workers_mebibytes=FLAT * 3)
    assert judge(held, process_rows(), system_rows(limit_gib=2.2)).primary.kind == "HIGH_PROCESS_MEMORY"
    assert judge(held, process_rows(), system_rows(limit_gib=4)).primary.kind == "NORMAL"


def test_ranks_of_one_host_add_up():
    rows = join(*(memory_rows(FLAT, rank=rank) for rank in range(4)))
    cpu = join(*(process_rows(rank=rank) for rank in range(4)))
    assert judge(rows, cpu, system_rows(limit_gib=2.1), ranks=4).primary.kind == "HIGH_PROCESS_MEMORY"


def test_pages_that_forked_workers_share_with_their_parent_are_held_once():
    gib = np.full(60, 1024.0)
    forked = memory_rows(4 * gib, workers=4, workers_mebibytes=14 * gib)
    assert judge(forked, process_rows(), system_rows(memory_gib=5, limit_gib=16)).primary.kind == "NORMAL"
    copied = judge(forked, process_rows(), system_rows(memory_gib=15, limit_gib=16)).primary
    assert (copied.kind, copied.evidence["memory_bytes"]) == ("HIGH_PROCESS_MEMORY", 15 * 2**30)


def test_pages_of_mapped_files_are_not_held():
    mapped = memory_rows(np.full(60, 15 * 1024.0), mapped_file_bytes=np.full(60, 13.0 * 2**30))
    assert judge(mapped, process_rows(), system_rows(memory_gib=15, limit_gib=16)).primary.kind == "NORMAL"


TWO_HOSTS = {0: "small", 1: "large"}


def on_two_hosts(small, large):
    """Rank 0 on a host of 16 GiB of which 3 are in use, rank 1 on one of 128 with 31 in use."""
    system = join(system_rows(memory_gib=3, limit_gib=16), system_rows(memory_gib=31, limit_gib=128, rank=1))
    cpu = join(process_rows(), process_rows(rank=1))
    return judge(join(memory_rows(small), memory_rows(large, rank=1)), cpu, system, ranks=2, hosts=TWO_HOSTS)


def test_what_a_host_holds_is_judged_by_its_own_limit():
    assert on_two_hosts(FLAT, FLAT * 60).primary.kind == "NORMAL"


def test_the_steps_that_are_left_are_those_of_the_host_that_is_full_first():
    large = on_two_hosts(FLAT, LEAK).primary
    assert large.risk.limit_bytes == 128 * 2**30
    assert large.risk.steps_left == pytest.approx(97 * 2**30 / (0.3 * 2**20), rel=0.02)
    both = on_two_hosts(LEAK, LEAK).primary
    assert both.risk.limit_bytes == 16 * 2**30
    assert both.risk.steps_left == pytest.approx(13 * 2**30 / (0.3 * 2**20), rel=0.02)


def test_ranks_that_leak_on_one_host_share_its_room():
    rows = join(*(memory_rows(LEAK, rank=rank) for rank in range(4)))
    cpu = join(*(process_rows(rank=rank) for rank in range(4)))
    issue = judge(rows, cpu, system_rows(memory_gib=4, limit_gib=16), ranks=4).primary
    assert issue.risk.steps_left == pytest.approx(12 * 2**30 / (4 * 0.3 * 2**20), rel=0.02)


def test_a_restart_does_not_hide_a_leak():
    again = memory_rows(LEAK, steps=np.arange(60) * 10 + 601, incarnation=2, started_ns=START_NS + 8 * 10**9)
    issue = judge(join(memory_rows(LEAK), again), process_rows(), system_rows()).primary
    assert (issue.kind, issue.ranks) == ("HOST_MEMORY_CREEP", (0,))
    assert issue.evidence["bytes_per_step"] == pytest.approx(0.3 * 2**20, rel=0.02)


def test_memory_is_not_judged_without_a_limit():
    diagnosis = judge(memory_rows(FLAT), process_rows(), system_rows(limit_gib=None))
    assert diagnosis.primary.kind == "INCOMPLETE_DATA"
    assert "the job's limit" in diagnosis.primary.summary


def test_memory_and_cpu_are_not_judged_where_neither_was_measured():
    diagnosis = judge(memory_rows(FLAT), None, system_rows())
    assert diagnosis.primary.evidence["missing"] == ["CPU time of the process"]
    assert "resident memory" in judge(None, process_rows(), system_rows()).primary.evidence["missing"]


def test_busy_cpus_are_a_warning_on_a_gpu_and_info_on_a_cpu():
    busy = process_rows(400.0, workers_cpu_percent=390.0)
    assert judge(memory_rows(FLAT), busy, system_rows(), device="cuda").primary.severity == "warning"
    on_cpu = judge(memory_rows(FLAT), busy, system_rows(), device="cpu").primary
    assert (on_cpu.kind, on_cpu.severity) == ("HIGH_PROCESS_CPU", "info")


def test_a_few_looks_at_the_cpu_are_no_basis():
    busy = process_rows(790.0, count=7)
    assert judge(memory_rows(FLAT), busy, system_rows()).primary.kind == "HIGH_PROCESS_CPU"
    assert judge(memory_rows(FLAT), busy, system_rows(), policy=LIVE_PROCESS_POLICY).primary.kind == "NORMAL"


def test_busy_cpus_lose_to_creep():
    busy = process_rows(790.0)
    assert kinds(judge(memory_rows(LEAK), busy, system_rows(), device="cuda")) == [
        "HOST_MEMORY_CREEP",
        "HIGH_PROCESS_CPU",
    ]


def test_reserved_memory_far_above_use_is_an_overhang():
    rows = step_memory_rows(peak_gib=20, reserved_gib=60)
    issue = judge(memory_rows(FLAT), process_rows(), system_rows(), rows, device="cuda").primary
    assert issue.kind == "GPU_MEMORY_RESERVED_OVERHANG"
    quiet = step_memory_rows(peak_gib=20, reserved_gib=24)
    assert judge(memory_rows(FLAT), process_rows(), system_rows(), quiet, device="cuda").primary.kind == "NORMAL"
    unknown = step_memory_rows(peak_gib=20, reserved_gib=60, total_gib=None)
    assert judge(memory_rows(FLAT), process_rows(), system_rows(), unknown, device="cuda").primary.kind == "NORMAL"


def test_an_overhang_loses_to_memory_that_ends_the_run():
    rows = step_memory_rows(peak_gib=20, reserved_gib=60)
    found = judge(memory_rows(LEAK), process_rows(), system_rows(), rows, device="cuda")
    assert kinds(found) == ["HOST_MEMORY_CREEP", "GPU_MEMORY_RESERVED_OVERHANG"]


def test_no_rows_are_no_data():
    assert judge().primary.kind == "NO_DATA"


def test_metrics_and_ranks_are_reduced():
    tables = {
        "process_memory": join(memory_rows(FLAT), memory_rows(FLAT * 2, rank=1)),
        "process": process_rows(150.0),
    }
    context = build_context(tables_of(tables), run_of(), SUMMARY_PROCESS_POLICY)
    assert context.metrics["rss_bytes"].max == 1000 * 2**20
    assert context.metrics["rss_bytes"].worst_rank == 1
    assert "workers_rss_bytes" not in context.metrics
    assert [rank.metrics["cpu_percent"] for rank in context.ranks] == [150.0, None]
