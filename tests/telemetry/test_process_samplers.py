"""The process samplers, on real processes: the rank's own, and its workers apart from it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import LIMIT_S

from traceml_core.core.identity import RankIdentity
from traceml_core.runtime.sender import SampledRows
from traceml_core.samplers import process_tree
from traceml_core.samplers.base import SamplerContext
from traceml_core.samplers.process import GLANCES, GLANCES_S, ProcessMemorySampler, ProcessSampler
from traceml_core.samplers.process_tree import activity, descendants, resident_memory

MIB = 2**20
# A process that says a word and ends with its stdin.
WAITS = "import sys; print('ready', flush=True); sys.stdin.read()"
HOLDS = f"held = b'x' * (64 * {MIB}); {WAITS}"
HAS_A_CHILD = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {WAITS!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print("ready", child.pid, flush=True)
sys.stdin.read()
child.stdin.close()
child.wait()
"""
HAS_TWO_THAT_HOLD = f"""
import subprocess, sys
held = [
    subprocess.Popen([sys.executable, "-c", {HOLDS!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
]
print("ready", *(child.stdout.readline() and child.pid for child in held), flush=True)
sys.stdin.read()
for child in held:
    child.stdin.close()
    child.wait()
"""


class Now:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.at_s = 100.0

    def __call__(self) -> float:
        return self.at_s


@pytest.fixture
def start() -> Iterator[Callable[[str], SimpleNamespace]]:
    """Start a process with this code, and wait for its first word; gives its pid and the rest of that line."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> SimpleNamespace:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return SimpleNamespace(pid=process.pid, said=process.stdout.readline().split()[1:], end=lambda: ended(process))

    def ended(process: subprocess.Popen[str]) -> None:
        process.stdin.close()
        process.wait(LIMIT_S)

    yield start
    for process in started:
        if process.poll() is None:
            ended(process)


def make_context(pid: int | None = None, aggregator_pid: int | None = None, **fields: Any) -> SamplerContext:
    values = {
        "identity": RankIdentity(),
        "clock": None,
        "steps": SimpleNamespace(steps_done=12),
        "watched_pid": os.getpid() if pid is None else pid,
        "device": lambda: "cpu",
        "unmeasured": frozenset,
        "aggregator_pid": lambda: aggregator_pid,
    }
    return SamplerContext(**{**values, **fields})


def test_children_and_theirs_are_found_and_the_aggregator_with_its_own_left_out(start):
    parent = start(HAS_A_CHILD)
    grandchild = int(parent.said[0])
    assert {parent.pid, grandchild} <= set(descendants(os.getpid()))
    assert not {parent.pid, grandchild} & set(descendants(os.getpid(), left_out=parent.pid))
    assert descendants(parent.pid, left_out=grandchild) == []


def test_ranks_that_were_launched_by_this_one_are_no_workers_of_it(start, monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_RANK", "0")
    worker = start(WAITS)
    monkeypatch.setenv("LOCAL_RANK", "1")
    rank = start(HAS_A_CHILD)
    others = {rank.pid, int(rank.said[0])}
    for proc in (Path("/proc"), tmp_path):  # both ways of finding children
        assert {worker.pid} | others <= set(descendants(os.getpid(), proc=proc))
        assert set(descendants(os.getpid(), proc=proc, local_rank=0)) & ({worker.pid} | others) == {worker.pid}
    assert others <= set(descendants(os.getpid(), local_rank=1))


def test_children_of_other_threads_are_found(start):
    pids: list[int] = []
    thread = threading.Thread(target=lambda: pids.append(start(WAITS).pid))
    thread.start()
    thread.join()
    assert pids[0] in descendants(os.getpid())


def test_a_child_whose_thread_ends_meanwhile_is_found_once(monkeypatch):
    """The first thread takes over the children of one that ends, here after the first read of any thread."""
    listings = {"/proc/10/task/10/children": [b"", b"12"], "/proc/10/task/11/children": [b"12", b""]}
    reads: list[str] = []

    def contents(path: str) -> bytes:
        reads.append(path)
        return listings.get(path, [b"", b""])[min(len(reads) - 1, 1)]

    monkeypatch.setattr(process_tree.os, "listdir", lambda path: ["10", "11"] if path == "/proc/10/task" else [])
    monkeypatch.setattr(process_tree, "_contents", contents)
    assert descendants(10) == [12]


def test_both_ways_of_finding_children_agree(start, tmp_path):
    parent = start(HAS_A_CHILD)
    for left_out in (None, int(parent.said[0])):
        searched = process_tree.descendants(parent.pid, left_out, proc=tmp_path)
        assert searched == descendants(parent.pid, left_out)


def test_a_process_that_has_ended_has_no_children_no_memory_and_no_activity(start):
    process = start(WAITS)
    process.end()
    assert descendants(process.pid) == []
    assert resident_memory(process.pid) is None
    assert activity(process.pid) is None


def test_a_process_that_nobody_has_waited_for_counts_as_ended():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert resident_memory(process.pid) is None
    assert activity(process.pid) is None
    process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_any_name_of_a_process_can_be_read_past(tmp_path):
    folder = tmp_path / "7"
    folder.mkdir()
    numbers = " ".join(["0"] * 10 + ["150", "50", "0", "0", "20", "0", "9", "0"])
    (folder / "stat").write_text(f"7 (a ) b) R) S {numbers}\n")
    used = activity(7, tmp_path)
    assert (used.cpu_s, used.threads) == (2.0, 9)


def test_resident_memory_is_what_psutil_says():
    psutil = pytest.importorskip("psutil")
    held = resident_memory(os.getpid())
    assert held.rss_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)
    if sys.platform == "linux":
        assert 0 < held.mapped_file_bytes < held.rss_bytes


def test_workers_are_counted_apart_from_the_process_and_the_aggregator_not_at_all(start):
    rank = start(HAS_TWO_THAT_HOLD)  # of its own, since this process may have children of other tests
    (row,) = ProcessMemorySampler(make_context(rank.pid, aggregator_pid=int(rank.said[1]))).sample()
    assert (row.workers, row.step) == (1, 12)
    assert row.rss_bytes < 64 * MIB <= row.workers_rss_bytes < 128 * MIB
    (with_both,) = ProcessMemorySampler(make_context(rank.pid)).sample()
    assert with_both.workers == 2
    assert with_both.workers_rss_bytes >= 128 * MIB


def test_without_workers_their_memory_is_null_and_not_zero(start):
    alone = start(WAITS)
    (row,) = ProcessMemorySampler(make_context(alone.pid)).sample()
    assert (row.workers, row.workers_rss_bytes, row.workers_mapped_file_bytes) == (0, None, None)


def test_memory_is_looked_at_at_every_tick_in_the_first_minute_then_at_the_interval():
    now = Now()
    sampler = ProcessMemorySampler(make_context(sample_interval_s=2.0), now)

    def rows_in(seconds: int) -> int:
        count = 0
        for _ in range(seconds * 10):
            count += len(sampler.sample())
            now.at_s += 0.1
        return count

    assert rows_in(60) == pytest.approx(600, abs=1)
    assert rows_in(60) == pytest.approx(30, abs=2)


def test_children_are_searched_for_at_most_once_a_second(monkeypatch):
    searches: list[float] = []
    now = Now()

    def counted(*_: Any, **__: Any) -> list[int]:
        searches.append(now.at_s)
        return []

    monkeypatch.setattr("traceml_core.samplers.process.descendants", counted)
    sampler = ProcessMemorySampler(make_context(), now)
    for _ in range(50):
        sampler.sample()
        now.at_s += 0.1
    assert len(searches) <= 6


def use_cpu(seconds: float) -> float:
    """Use so much, or a little more; how much."""
    began_s = activity(os.getpid()).cpu_s
    while (used_s := activity(os.getpid()).cpu_s - began_s) < seconds:
        sum(range(1_000))
    return used_s


def test_cpu_is_that_since_the_last_look_and_100_is_one_core():
    now = Now()
    before_s = activity(os.getpid()).cpu_s
    sampler = ProcessSampler(make_context(), now)
    least_s = use_cpu(0.1)
    now.at_s += 0.4
    (row,) = sampler.sample()
    most_s = activity(os.getpid()).cpu_s - before_s
    assert least_s >= 0.1
    assert least_s / 0.4 * 100 - 1e-6 <= row.cpu_percent <= most_s / 0.4 * 100 + 1e-6
    assert row.threads >= 1
    assert row.gpu_memory_bytes is None


def test_right_after_a_look_cpu_is_unmeasured_and_the_time_is_not_lost():
    now = Now()
    sampler = ProcessSampler(make_context(), now)
    use_cpu(0.1)
    now.at_s += 0.01
    assert sampler.sample()[0].cpu_percent is None
    now.at_s += 0.99
    assert sampler.sample()[0].cpu_percent >= 9


def test_a_worker_that_began_since_the_last_look_counts_with_all_its_time(start):
    now = Now()
    sampler = ProcessSampler(make_context(), now)
    worker = start(f"import time\nwhile time.process_time() < 0.3: pass\n{WAITS}")
    now.at_s += 1
    (row,) = sampler.sample()
    assert row.workers >= 1
    assert row.workers_cpu_percent >= 28  # its user's and its system's time are each rounded down to 10 ms
    assert worker.pid


def test_a_number_that_another_process_has_now_takes_nothing_away(monkeypatch):
    seen = [{1: 5.0, 2: 100.0}, {1: 6.0, 2: 0.5}]
    looks = iter(seen)
    monkeypatch.setattr(ProcessSampler, "_look", lambda self: (next(looks), 1))
    now = Now()
    sampler = ProcessSampler(make_context(1), now)
    now.at_s += 1
    (row,) = sampler.sample()
    assert (row.cpu_percent, row.workers_cpu_percent) == (pytest.approx(100.0), 0.0)


def test_a_process_that_has_ended_gives_no_rows_and_no_failure(start):
    process = start(WAITS)
    now = Now()
    samplers = [ProcessSampler(make_context(process.pid), now), ProcessMemorySampler(make_context(process.pid), now)]
    process.end()
    now.at_s += 5
    assert [list(sampler.sample()) for sampler in samplers] == [[], []]


def test_gpu_memory_is_asked_for_only_where_training_is_on_a_gpu(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr("traceml_core.samplers.process.library", lambda: asked.append("asked"))
    ProcessSampler(make_context()).sample()
    assert asked == []
    assert ProcessSampler(make_context(device=lambda: "cuda")).sample()[0].gpu_memory_bytes is None
    assert asked == ["asked"]


def test_memory_is_glanced_at_between_ticks_where_steps_are_fast_and_only_at_first():
    now = Now()
    context = make_context()
    sampler = ProcessMemorySampler(context, now)
    rows = SampledRows([(sampler, 0.0)])

    def glances_after(steps: int) -> int:
        context.steps.steps_done += steps
        now.at_s += 0.1
        sampler.sample()
        return rows.glances

    sampler.sample()
    assert glances_after(10) == 0  # steps of 10 ms: the ticks are enough
    assert glances_after(50) == GLANCES
    rows.glance()
    assert len(sampler.sample()) == 2
    now.at_s += GLANCES_S
    assert glances_after(50) == 0
