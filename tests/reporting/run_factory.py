"""Run folders made from a plan: a manifest and a real SQLite history, as a training would have left them."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import numpy as np
import pytest

from traceml_core.core.identity import RankIdentity
from traceml_core.core.phases import Phase
from traceml_core.core.process_birth import birth_of, pid_namespace
from traceml_core.core.rows import Row
from traceml_core.core.run_folder import Manifest, Owner, RunFolder, write_manifest
from traceml_core.history import bounded_rows
from traceml_core.history.writer import HistoryWriter
from traceml_core.runtime.outbox import sized_chunks
from traceml_core.samplers.gpu import GpuRow
from traceml_core.samplers.process import ProcessMemoryRow, ProcessRow
from traceml_core.samplers.step_memory import StepMemoryRow
from traceml_core.samplers.step_time import OwnerTimeRow, StepTimeRow
from traceml_core.samplers.system import SystemRow
from traceml_core.telemetry.facts import LoaderFacts, RunFacts
from traceml_core.telemetry.messages import Batch, Finish, RunError, RunStatus

ROW_TYPES = (StepTimeRow, OwnerTimeRow, StepMemoryRow, ProcessRow, ProcessMemoryRow, SystemRow, GpuRow)
HEALTHY_MS = {
    Phase.INPUT_WAIT: 0.3,
    Phase.H2D: 0.1,
    Phase.FORWARD: 4.0,
    Phase.BACKWARD: 5.0,
    Phase.GRAD_SYNC: 0.0,
    Phase.OPTIMIZER: 0.7,
    Phase.UNATTRIBUTED: 0.2,
}
STARTED_NS = 1_767_268_800 * 10**9  # 2026-01-01T12:00:00Z
ROWS_A_BATCH = 2_000
GIB = 2**30


class RunPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a made-up run is like. Milliseconds, bytes; `around_ms` maps a phase to (every so many steps, how long).

    `status` None: the run was killed and never finished. `owner_lives`: the manifest names this very process.
    `restart_after`: each rank dies after so many steps and starts again `redone_steps` before, `restart_clock_s` later
    by the wall clock. `unended`: ranks that never say how they ended.
    """

    name: str = "train-digits"
    steps: int = 200
    first_step: int = 0
    ranks: int = 1
    framework: str = "lightning"
    device: str = "cpu"
    phases_ms: Mapping[Phase, float] = msgspec.field(default_factory=lambda: HEALTHY_MS)
    rank_phases_ms: Mapping[int, Mapping[Phase, float]] = {}
    around_ms: Mapping[Phase, tuple[int, float]] = {}
    owners_ms: Mapping[str, float] = {}
    warmup_steps: int = 0
    warmup_factor: float = 3.0
    startup_ms: float = 400.0
    teardown_ms: float = 20.0
    lost_ms: float = 0.0
    jitter: float = 0.02
    unmeasured: tuple[str, ...] = ()
    samples: int | None = 32
    tokens: int | None = None
    rss_bytes: Callable[[int], float] = lambda step: 0.6 * GIB
    workers_rss_bytes: Callable[[int], float] | None = None
    memory_limit_bytes: int = 16 * GIB
    gpu_peak_bytes: Callable[[int], float] | None = None
    host_cpu_percent: float = 40.0
    restart_after: int | None = None
    redone_steps: int = 5
    restart_clock_s: float = 1.0
    unended: tuple[int, ...] = ()
    status: RunStatus | None = "completed"
    error: RunError | None = None
    rows_dropped: int = 0
    failures: Mapping[str, int] = {}
    owner_lives: bool = False
    history: bool = True


@contextmanager
def rolled_up_early(detail: int, kept: int) -> Iterator[pytest.MonkeyPatch]:
    """Runs made in the block keep so many first and last rows; the others are rolled up, however short the run is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "ROWS_A_BATCH", 50)
        patch.setattr(bounded_rows, "LARGEST_DETAIL", detail)
        patch.setattr(bounded_rows, "KEPT_OF_ALL", kept)
        yield patch


def make_run_folder(parent: Path, plan: RunPlan | None = None, **fields: object) -> Path:
    """A run folder in `parent` after `plan`, or after the default plan with these fields.

    Each further run of a folder says that it started a minute after the one before.
    """
    plan = plan or RunPlan(**fields)  # type: ignore[arg-type]
    number = len(list(parent.iterdir())) if parent.is_dir() else 0
    run_id = f"20260101T120000Z-{plan.name}-{number:04x}"
    path = parent / run_id
    path.mkdir(parents=True)
    started_at = datetime.fromtimestamp(STARTED_NS / 1e9 + 60 * number, timezone.utc).isoformat().replace("+00:00", "Z")
    manifest = Manifest(run_id=run_id, name=plan.name, started_at=started_at, labels={}, owner=_owner(plan))
    write_manifest(RunFolder(path, run_id, plan.name), manifest)
    if plan.history:
        writer = HistoryWriter(path / "telemetry.sqlite", ROW_TYPES)
        for rank in range(plan.ranks):
            _write_rank(writer, plan, rank)
        writer.commit()
        writer.close()
    return path


def _owner(plan: RunPlan) -> Owner:
    birth = birth_of(os.getpid()) if plan.owner_lives else "long ago"
    return Owner(host=socket.gethostname(), pid=os.getpid(), birth=birth, pid_namespace=pid_namespace())


def _write_rank(writer: HistoryWriter, plan: RunPlan, rank: int) -> None:
    if plan.restart_after is None:
        _write_start(writer, plan, rank, STARTED_NS)
        return
    before = msgspec.structs.replace(plan, steps=plan.restart_after, status=None, teardown_ms=0.0)
    ended_ns = _write_start(writer, before, rank, STARTED_NS)
    resumed_at = plan.restart_after - plan.redone_steps
    after = msgspec.structs.replace(plan, first_step=plan.first_step + resumed_at, steps=plan.steps - resumed_at)
    _write_start(writer, after, rank, ended_ns + int(plan.restart_clock_s * 1e9))


def _write_start(writer: HistoryWriter, plan: RunPlan, rank: int, started_ns: int) -> int:
    """Write what one start of a rank sends; when it ended."""
    identity = RankIdentity(rank=rank, local_rank=rank, world_size=plan.ranks, pid=1000 + rank)
    writer.hello(identity, started_ns)
    if rank == 0:
        writer.describe(rank, _facts(plan))
    steps = list(_step_rows(plan, rank, started_ns))
    wall_ns = sum(row.interval_ns for row in steps) + int(plan.lost_ms * 1e6)
    rows: list[Row] = [*steps, *_sampled_rows(plan, rank, steps)]
    sender = (rank, identity.incarnation)
    for number, start in enumerate(range(0, len(rows), ROWS_A_BATCH), start=1):
        is_last = start + ROWS_A_BATCH >= len(rows)
        dropped, failures = (plan.rows_dropped, dict(plan.failures)) if is_last else (0, {})
        chunks = [sized.chunk for sized in sized_chunks(rows[start : start + ROWS_A_BATCH])]
        writer.write(Batch(*sender, number, wall_ns, dropped, failures, chunks))
    if plan.status is not None and rank not in plan.unended:
        writer.finish(Finish(*sender, plan.status, plan.error, wall_ns, 9_000.0, rank == 0, "full", 80, False))
    return started_ns + wall_ns


def _facts(plan: RunPlan) -> RunFacts:
    return RunFacts(
        framework=plan.framework,
        versions={"torch": "2.13.0"},
        device=plan.device,
        precision="32-true",
        batch_size=plan.samples,
        accumulation=1,
        loader=LoaderFacts(num_workers=0),
        unmeasured=plan.unmeasured,
    )


def _step_rows(plan: RunPlan, rank: int, started_ns: int) -> Iterator[StepTimeRow]:
    random = np.random.default_rng(rank)
    clock_ns = started_ns
    phases_ms = {**plan.phases_ms, **plan.rank_phases_ms.get(rank, {})}
    row = _row(plan, None, clock_ns, {Phase.STARTUP: plan.startup_ms})
    yield row
    clock_ns += row.interval_ns
    for number in range(1, plan.steps + 1):
        factor = plan.warmup_factor if number <= plan.warmup_steps else 1.0
        noise = random.lognormal(0.0, plan.jitter, len(phases_ms))
        spent_ms = {phase: value * factor * float(noise[i]) for i, (phase, value) in enumerate(phases_ms.items())}
        for phase, (every, value) in plan.around_ms.items():
            spent_ms[phase] = spent_ms.get(phase, 0.0) + (value if number % every == 0 else 0.0)
        for value in plan.owners_ms.values():
            spent_ms[Phase.CALLBACKS] = spent_ms.get(Phase.CALLBACKS, 0.0) + value
        row = _row(plan, plan.first_step + number, clock_ns, spent_ms)
        yield row
        clock_ns += row.interval_ns
    yield _row(plan, None, clock_ns, {Phase.TEARDOWN: plan.teardown_ms})


def _row(plan: RunPlan, step: int | None, started_ns: int, spent_ms: Mapping[Phase, float]) -> StepTimeRow:
    spent: dict[Phase, int | None] = {phase: int(spent_ms.get(phase, 0.0) * 1e6) for phase in Phase}
    interval_ns = sum(value for value in spent.values() if value is not None)
    for key in plan.unmeasured:
        phase = Phase[key.upper()]
        spent[Phase.UNATTRIBUTED] = (spent[Phase.UNATTRIBUTED] or 0) + (spent[phase] or 0)
        spent[phase] = None
    device = [None] * 7
    is_step = step is not None
    counts = (1 if is_step else 0, plan.samples if is_step else None, plan.tokens if is_step else None)
    return StepTimeRow(step, started_ns, interval_ns, *(spent[phase] for phase in Phase), *device, *counts)


def _sampled_rows(plan: RunPlan, rank: int, steps: list[StepTimeRow]) -> Iterator[Row]:
    """What the samplers saw: memory at 10 Hz, the rest at 1 Hz, each at the step that was being done then."""
    begin_ns, end_ns = steps[0].started_ns, steps[-1].started_ns + steps[-1].interval_ns
    done_ns = np.array([row.started_ns + row.interval_ns for row in steps if row.step is not None])
    for tick, at_ns in enumerate(range(begin_ns, end_ns, 10**8)):
        step = int(np.searchsorted(done_ns, at_ns, side="right"))
        workers = None if plan.workers_rss_bytes is None else int(plan.workers_rss_bytes(step))
        yield ProcessMemoryRow(at_ns, step, int(plan.rss_bytes(step)), workers, 0 if workers is None else 2)
        if tick % 10 == 0:
            yield ProcessRow(at_ns, step, 99.0, 8, 0 if workers is None else 2, None, None)
            if rank == 0:
                yield SystemRow(at_ns, plan.host_cpu_percent, 3 * GIB, plan.memory_limit_bytes, 4.0)
    for number, row in enumerate(row for row in steps if row.step is not None):
        if plan.gpu_peak_bytes is not None:
            peak = int(plan.gpu_peak_bytes(number))
            yield StepMemoryRow(row.step or 0, rank, peak, peak, peak, peak, 80 * GIB, 0)
    for owner, value in plan.owners_ms.items():
        spent_ns, last = int(value * 1e6), plan.first_step + plan.steps
        yield OwnerTimeRow("callbacks", owner, 1, last, plan.steps, spent_ns * plan.steps, spent_ns)
