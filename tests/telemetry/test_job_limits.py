"""The job's limits, told from made-up cgroup trees."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from traceml_core.core.identity import RankIdentity
from traceml_core.samplers.base import SamplerContext
from traceml_core.samplers.job_limits import JobLimits, job_limits, job_memory_used, quota_used_s
from traceml_core.samplers.system import SystemSampler, busy_cpu_s

GIB = 2**30
MACHINE_BYTES = 64 * GIB
CPUS = frozenset(range(16))


def make_tree(root: Path, cgroup: str, **files: str) -> Path:
    """A file-system root with /proc/self/cgroup and files under /sys/fs/cgroup; `__` in a name is a slash."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def limits_of(root: Path, cpus: frozenset[int] = CPUS) -> JobLimits:
    return job_limits(root, MACHINE_BYTES, cpus)


def test_without_cgroups_the_machine_is_the_limit(tmp_path):
    limits = limits_of(tmp_path)
    assert (limits.cpus, limits.memory_bytes, limits.memory, limits.quota) == (16.0, MACHINE_BYTES, None, None)


def test_a_container_of_its_own_namespace_has_its_limits_at_the_mount(tmp_path):
    root = make_tree(
        tmp_path,
        "0::/\n",
        memory_dot_max=str(8 * GIB),
        memory_dot_current=str(5 * GIB),
        memory_dot_stat=f"anon 1\ninactive_file {GIB}",
        cpu_dot_max="250000 100000",
        cpu_dot_stat="usage_usec 7000000\nuser_usec 1",
    )
    limits = limits_of(root)
    assert (limits.cpus, limits.memory_bytes) == (2.5, 8 * GIB)
    assert job_memory_used(limits) == 4 * GIB  # page cache that can be given back does not count
    assert quota_used_s(limits.quota) == 7.0


def test_the_tightest_limit_on_the_way_up_counts(tmp_path):
    root = make_tree(
        tmp_path,
        "0::/job/step/task\n",
        job__memory_dot_max=str(16 * GIB),
        job__memory_dot_current="1",
        job__step__memory_dot_max=str(4 * GIB),
        job__step__memory_dot_current="2",
        job__step__task__memory_dot_max="max",
        job__step__task__memory_dot_current="3",
        job__cpu_dot_max="400000 100000",
        job__step__cpu_dot_max="max 100000",
    )
    limits = limits_of(root)
    assert (limits.memory_bytes, job_memory_used(limits)) == (4 * GIB, 2)
    assert limits.cpus == 4.0


def test_version_1_is_read_too(tmp_path):
    root = make_tree(
        tmp_path,
        "4:memory:/slurm/job_7\n2:cpu,cpuacct:/slurm/job_7\n0::/\n",
        memory__slurm__job_7__memory_dot_limit_in_bytes=str(12 * GIB),
        memory__slurm__job_7__memory_dot_usage_in_bytes=str(6 * GIB),
        memory__slurm__job_7__memory_dot_stat=f"inactive_file 5\ntotal_inactive_file {2 * GIB}",
        memory__memory_dot_limit_in_bytes="9223372036854771712",
        cpu__slurm__job_7__cpu_dot_cfs_quota_us="300000",
        cpu__slurm__job_7__cpu_dot_cfs_period_us="100000",
        cpuacct__slurm__job_7__cpuacct_dot_usage="9000000000",
    )
    limits = limits_of(root)
    assert (limits.cpus, limits.memory_bytes, job_memory_used(limits)) == (3.0, 12 * GIB, 4 * GIB)
    assert quota_used_s(limits.quota) == 9.0


def test_no_limit_in_version_1_is_no_limit(tmp_path):
    root = make_tree(
        tmp_path,
        "4:memory:/\n2:cpu:/\n",
        memory__memory_dot_limit_in_bytes="9223372036854771712",
        memory__memory_dot_usage_in_bytes="1",
        cpu__cpu_dot_cfs_quota_us="-1",
        cpu__cpu_dot_cfs_period_us="100000",
    )
    limits = limits_of(root)
    assert (limits.cpus, limits.memory_bytes, limits.quota) == (16.0, MACHINE_BYTES, None)


def test_a_path_that_is_not_mounted_here_falls_back_to_the_mount(tmp_path):
    root = make_tree(
        tmp_path, "0::/docker/0123abcd\n", memory_dot_max=str(GIB), memory_dot_current="1", cpu_dot_max="max 100000"
    )
    assert limits_of(root).memory_bytes == GIB


@pytest.mark.parametrize("limit", [MACHINE_BYTES, 2 * MACHINE_BYTES])
def test_a_limit_beyond_the_machine_limits_nothing(tmp_path, limit):
    root = make_tree(
        tmp_path, "0::/\n", memory_dot_max=str(limit), memory_dot_current="1", cpu_dot_max="3200000 100000"
    )
    limits = limits_of(root)
    assert (limits.memory_bytes, limits.memory, limits.cpus) == (MACHINE_BYTES, None, 16.0)


def test_an_affinity_that_is_tighter_than_the_quota_counts(tmp_path):
    root = make_tree(tmp_path, "0::/\n", cpu_dot_max="800000 100000")
    limits = limits_of(root, frozenset({3, 5}))
    assert (limits.cpus, limits.cpu_numbers, limits.quota) == (2.0, frozenset({3, 5}), None)


@pytest.mark.parametrize("cgroup", ["", "garbage", "0::", "::::", "1:name=systemd:/user.slice\n"])
def test_a_cgroup_file_of_another_kind_limits_nothing(tmp_path, cgroup):
    assert limits_of(make_tree(tmp_path, cgroup)).memory_bytes == MACHINE_BYTES


def test_a_cgroup_that_is_gone_leaves_its_figures_unmeasured(tmp_path):
    root = make_tree(
        tmp_path,
        "0::/\n",
        memory_dot_max=str(GIB),
        memory_dot_current="1",
        cpu_dot_max="100000 100000",
        cpu_dot_stat="usage_usec 1",
    )
    limits = limits_of(root)
    for name in ("memory.current", "cpu.stat"):
        (root / "sys/fs/cgroup" / name).unlink()
    assert job_memory_used(limits) is None
    assert quota_used_s(limits.quota) is None


def test_the_limits_of_this_very_process_are_plausible():
    limits = job_limits()
    assert 0 < limits.cpus <= (os.cpu_count() or 1)
    assert 0 < limits.memory_bytes <= psutil.virtual_memory().total
    assert 0 < job_memory_used(limits) <= limits.memory_bytes
    assert busy_cpu_s(limits) > 0


def make_context(local_rank: int = 0) -> SamplerContext:
    return SamplerContext(
        identity=RankIdentity(local_rank=local_rank),
        clock=None,
        steps=None,
        watched_pid=os.getpid(),
        device=lambda: None,
        unmeasured=frozenset,
        aggregator_pid=lambda: None,
    )


class Now:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.at_s = 100.0

    def __call__(self) -> float:
        return self.at_s


@pytest.fixture
def quota_root(tmp_path) -> Path:
    return make_tree(tmp_path, "0::/\n", cpu_dot_max="200000 100000", cpu_dot_stat="usage_usec 1000000")


def test_under_a_quota_the_job_is_as_busy_as_its_own_cgroup(quota_root):
    now = Now()
    sampler = SystemSampler(make_context(), lambda: limits_of(quota_root), now)
    now.at_s += 2
    (quota_root / "sys/fs/cgroup/cpu.stat").write_text("usage_usec 2000000\n")
    (row,) = sampler.sample()
    assert (row.host_cpu_percent, row.cpus) == (25.0, 2.0)  # one second of the four that two CPUs had


def test_right_after_a_look_the_cpu_share_is_unmeasured_and_the_look_still_counts_later(quota_root):
    now = Now()
    sampler = SystemSampler(make_context(), lambda: limits_of(quota_root), now)
    assert sampler.sample()[0].host_cpu_percent is None
    now.at_s += 0.04
    (quota_root / "sys/fs/cgroup/cpu.stat").write_text("usage_usec 1040000\n")
    assert sampler.sample()[0].host_cpu_percent is None
    now.at_s += 0.96
    (quota_root / "sys/fs/cgroup/cpu.stat").write_text("usage_usec 2000000\n")
    assert sampler.sample()[0].host_cpu_percent == pytest.approx(50.0)


def test_a_host_is_looked_at_by_one_rank_alone():
    assert SystemSampler(make_context(local_rank=1)).sample() == []


class CpuTimes(NamedTuple):
    """What psutil tells of one CPU."""

    user: float
    system: float
    idle: float
    iowait: float
    guest: float


def test_by_affinity_only_the_jobs_cpus_count_and_only_what_they_were_busy_with(tmp_path, monkeypatch):
    times = [CpuTimes(float(10**number), 1.0, 1_000.0, 500.0, 0.5) for number in range(4)]
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: times)
    assert busy_cpu_s(limits_of(tmp_path, frozenset({1, 3}))) == 10 + 1_000 + 2
    assert busy_cpu_s(limits_of(tmp_path, frozenset(range(4)))) == 1_111 + 4
    # Of CPUs that are offline nobody tells which they are: the job has its part of what the others did.
    assert busy_cpu_s(limits_of(tmp_path, frozenset({1, 5}))) == (1_111 + 4) / 2
