"""How TraceML carries many ranks and long runs: ingest over real sockets, the bounded history, and the report.

`python benchmarks/scale.py flood ranks history` runs these parts; none given: all. `--quick`: a short version of each.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil

from traceml_core.core.identity import RankIdentity
from traceml_core.core.run_folder import RunFolder, create_run_folder
from traceml_core.core.settings import resolve_settings
from traceml_core.runtime.conversation import Conversation
from traceml_core.runtime.lifecycle import start_aggregator
from traceml_core.runtime.outbox import Outbox, SizedChunk, sized_chunks
from traceml_core.runtime.sampler_registry import row_types
from traceml_core.runtime.sender import tick_s
from traceml_core.samplers.process import ProcessMemoryRow
from traceml_core.samplers.step_time import StepTimeRow
from traceml_core.telemetry.messages import Batch, Finish
from traceml_core.transport.client import TelemetryClient
from traceml_core.transport.keys import Ticket

STARTED_NS = 1_760_000_000_000_000_000
STEP_NS = 10_000_000
STEPS_A_SECOND = 10
DRAIN_S = 30.0


class Served(NamedTuple):
    """What an aggregator did with the rows of some ranks."""

    rows: int
    sent: int
    dropped: int
    wall_s: float
    cpu_s: float
    memory_mib: float
    disk_mb: float
    report_s: float


def step_row(step: int, rank: int) -> StepTimeRow:
    """A step of about 10 ms; ranks and steps differ a little, so that columns compress no better than real ones."""
    spread = (step * 7_919 + rank * 104_729) % 1_000_003
    forward, backward = 3_500_000 + spread, 4_900_000 + (spread * 31) % 1_000_003
    host = (300_000, 50_000, forward, backward, 0, 700_000, 150_000 + spread % 997)
    return StepTimeRow(step, STARTED_NS + step * STEP_NS, sum(host), *host, *(0,) * 7, *(None,) * 7, 1, 32, None)


def later(rows: list[StepTimeRow], first: int) -> list[StepTimeRow]:
    """The same work in the steps from `first` on."""
    return [
        msgspec.structs.replace(row, step=step, started_ns=STARTED_NS + step * STEP_NS)
        for step, row in enumerate(rows, start=first)
    ]


def flood(batches: int, ranks: int = 8) -> Served:
    """Send batches of 2,000 steps as fast as the aggregator acknowledges: its highest rate."""
    return serve(ranks, 120.0, lambda rank: iter(flood_chunks(rank, batches)), wait_s=0.0, processes=2)


def paced(ranks: int, seconds: float) -> Served:
    """Ten steps a second and rank, sent as often as ranks of such a job do, each time with a look at memory."""
    wait_s = tick_s(ranks)
    steps = round(wait_s * STEPS_A_SECOND)
    return serve(ranks, seconds, lambda rank: paced_chunks(rank, steps), wait_s=wait_s, processes=4)


def flood_chunks(rank: int, batches: int) -> list[list[SizedChunk]]:
    """Batches of 2,000 steps, encoded before the clock runs."""
    rows = [step_row(step, rank) for step in range(1, 2_001)]
    return [sized_chunks(later(rows, number * len(rows) + 1)) for number in range(batches)]


def paced_chunks(rank: int, steps: int) -> Iterator[list[SizedChunk]]:
    """So many steps at a time."""
    for step in itertools.count(steps, steps):
        memory = ProcessMemoryRow(STARTED_NS + step * STEP_NS, step, 2**30 + step, None, 0)
        yield sized_chunks([*(step_row(one, rank) for one in range(step - steps + 1, step + 1)), memory])


def serve(
    ranks: int,
    seconds: float,
    chunks: Callable[[int], Iterator[list[SizedChunk]]],
    *,
    wait_s: float,
    processes: int,
) -> Served:
    """Start an aggregator and these ranks, in some processes; end them, and the run."""
    with tempfile.TemporaryDirectory() as runs_dir:
        settings = resolve_settings(runs_dir=runs_dir, name="scale")
        folder = create_run_folder(settings)
        assert folder is not None
        aggregator = start_aggregator(folder, settings)
        watched = psutil.Process(aggregator.pid)
        groups = [range(first, ranks, processes) for first in range(min(processes, ranks))]
        results: multiprocessing.Queue[tuple[int, int, int]] = multiprocessing.Queue()
        ready = multiprocessing.Barrier(len(groups) + 1)
        children = [
            multiprocessing.Process(
                target=simulate, args=(aggregator.ticket, list(group), ranks, seconds, chunks, wait_s, ready, results)
            )
            for group in groups
        ]
        for child in children:
            child.start()
        ready.wait()
        began, before = time.monotonic(), watched.cpu_times()
        memory, told = 0, []
        while len(told) < len(children):
            memory = max(memory, watched.memory_info().rss)
            with suppress(queue.Empty):
                told.append(results.get(timeout=0.1))
        wall_s, spent = time.monotonic() - began, watched.cpu_times()
        for child in children:
            child.join()
        report_s = ask_for_report(aggregator.ticket, ranks)
        memory = max(memory, watched.memory_info().rss)
        aggregator.stop()
        rows, sent, dropped = (sum(values) for values in zip(*told, strict=True))
        disk_mb = sum(file.stat().st_size for file in folder.path.iterdir()) / 1e6
        check_rows(folder, rows)
        cpu_s = spent.user + spent.system - before.user - before.system
        return Served(rows, sent, dropped, wall_s, cpu_s, memory / 2**20, disk_mb, report_s)


def simulate(
    ticket: Ticket,
    numbers: list[int],
    world_size: int,
    seconds: float,
    chunks: Callable[[int], Iterator[list[SizedChunk]]],
    wait_s: float,
    ready: threading.Barrier,
    results: multiprocessing.Queue[tuple[int, int, int]],
) -> None:
    """Be these ranks for so long, then until all that they sent is stored."""
    ranks = [_Rank(ticket, number, world_size, chunks(number)) for number in numbers]
    ready.wait()
    until = time.monotonic() + seconds
    due = [time.monotonic() + wait_s * place / len(ranks) for place in range(len(ranks))]
    while time.monotonic() < until and not all(rank.is_done for rank in ranks):
        for place, rank in enumerate(ranks):
            if time.monotonic() >= due[place]:
                due[place] += wait_s
                rank.produce()
                rank.conversation.exchange()  # once a tick, as the sender of a real rank does
        if wait_s:
            time.sleep(0.002)
    until = time.monotonic() + DRAIN_S
    while any(len(rank.outbox) for rank in ranks) and time.monotonic() < until:
        for rank in ranks:
            rank.conversation.exchange()
        time.sleep(0.002)
    stored = sum(rank.made - rank.outbox.rows for rank in ranks)
    results.put((stored, sum(rank.made for rank in ranks), sum(rank.outbox.rows_dropped for rank in ranks)))
    for rank in ranks:
        rank.conversation.end(
            Finish(rank.number, 7, "completed", None, int(seconds * 1e9), 0.0, False, "off", 80, False)
        )
        rank.conversation.exchange()
        rank.client.close(linger_ms=500)


class _Rank:
    """One simulated rank: a real client, outbox and conversation."""

    def __init__(self, ticket: Ticket, number: int, world_size: int, chunks: Iterator[list[SizedChunk]]) -> None:
        self.number = number
        self.client = TelemetryClient(ticket)
        self.outbox = Outbox(number, 7)
        identity = RankIdentity(rank=number, local_rank=number, incarnation=7, world_size=world_size)
        self.conversation = Conversation(self.client, identity, self.outbox)
        self.made = 0
        self.is_done = False
        self._chunks = chunks

    def produce(self) -> None:
        """Put the next rows into the outbox, unless it is a flood and the aggregator is behind."""
        if len(self.outbox) > 32:
            return
        chunks = next(self._chunks, None)
        if chunks is None:
            self.is_done = True
            return
        self.made += sum(chunk.rows for chunk in chunks)
        self.outbox.put(chunks, self.made * STEP_NS, 0, {})


def finish_of(rank: int, wall_ns: int, *, report: bool) -> Finish:
    """The end of a rank."""
    return Finish(rank, 7, "completed", None, wall_ns, 0.0, report, "off", 80, False)


def ask_for_report(ticket: Ticket, ranks: int) -> float:
    """Ask for the report as rank 0 does; how long it took."""
    client = TelemetryClient(ticket)
    identity = RankIdentity(rank=0, local_rank=0, incarnation=7, world_size=ranks)
    conversation = Conversation(client, identity, Outbox(0, 7))
    began = time.monotonic()
    conversation.end(finish_of(0, 10**9, report=True))
    while not conversation.is_over and time.monotonic() - began < 120:
        conversation.exchange(20)
    client.close()
    return time.monotonic() - began


def check_rows(folder: RunFolder, acked: int) -> None:
    """Every row that was acknowledged is in the history."""
    from traceml_core.history.reader import HistoryReader

    with HistoryReader(folder.history) as reader:
        tables = [reader.reduced(table) for table in ("step_time", "process_memory")]
        stored = sum(int(table.rows.sum()) for table in tables if table is not None)
        received = sum(record.rows_received for record in reader.ranks())
    assert stored == received >= acked, (stored, received, acked)


class Long(NamedTuple):
    """A history that was written directly, and its report."""

    ranks: int
    steps: int
    rows_per_cpu_s: float
    writer_mib: float
    disk_mb: float
    report_s: float
    report_mib: float
    reported_steps: int


def long_run(ranks: int, steps: int, path: Path, until_s: float = math.inf) -> Long | None:
    """Write that many steps of that many ranks, going on where `path` stops; null where time is over before."""
    from traceml_core.history.writer import HistoryWriter

    path.mkdir(exist_ok=True)
    writer = HistoryWriter(path / "telemetry.sqlite", row_types())
    marks = [writer.hello(RankIdentity(rank=r, local_rank=r, incarnation=7, world_size=ranks), 5) for r in range(ranks)]
    batch = 2_000
    templates = [step_row(step, 0) for step in range(1, batch + 1)]
    written, spent_s, began = 0, 0.0, time.monotonic()
    for number in range(min(marks), steps // batch):
        if time.monotonic() - began > until_s:
            writer.close()
            return None
        first = number * batch + 1
        rows = later(templates, first)
        chunks = [sized.chunk for sized in sized_chunks(rows)]
        started = time.process_time()
        for rank in range(ranks):
            writer.write(Batch(rank, 7, number + 1, (number + 1) * batch * STEP_NS, 0, {}, chunks))
        writer.commit()
        spent_s += time.process_time() - started
        written += batch * ranks
    writer.close()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told = json.loads(subprocess.check_output([sys.executable, __file__, "report", str(path)]))
    size = (path / "telemetry.sqlite").stat().st_size / 1e6
    rate = written / spent_s if spent_s else math.nan
    return Long(ranks, steps, rate, memory, size, told["report_s"], told["memory_mib"], told["steps"])


def report(path: Path) -> None:
    """Build a report as the aggregator does, with everything imported; print what it cost."""
    import rich  # noqa: F401 - what the aggregator has loaded by then

    from traceml_core.reporting.final import build_summary

    began = time.perf_counter()
    summary = build_summary(path, status="completed")
    spent_s = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps({"report_s": spent_s, "memory_mib": memory, "steps": summary.run.steps}))


def show_exponent(what: str, pairs: Sequence[tuple[float, float]]) -> None:
    """The slope of log y over log x, by least squares: 1 is proportional, 0 is none. Nothing where x is one number."""
    points = [(math.log(x), math.log(max(y, 1e-9))) for x, y in pairs]
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if spread:
        say(f"  {what}: exponent {sum((x - mean_x) * (y - mean_y) for x, y in points) / spread:.2f}")


def show_flood(quick: bool) -> None:
    """The highest rate of one aggregator."""
    served = flood(20 if quick else 100)
    say(
        f"flood, 8 ranks: {served.rows / served.wall_s:,.0f} rows/s by the clock, {served.rows / served.cpu_s:,.0f} a "
        f"second of the aggregator's CPU; of {served.sent:,} rows {served.sent - served.rows:,} are not stored; memory "
        f"{served.memory_mib:.0f} MiB, disk {served.disk_mb:.1f} MB, report {served.report_s:.2f} s"
    )


def show_ranks(quick: bool, counts: Sequence[int]) -> None:
    """Ten steps a second from more and more ranks."""
    found = [(ranks, paced(ranks, 5.0 if quick else 60.0)) for ranks in counts]
    say("ranks   rows/s   lost   CPU of a core   µs a row   memory MiB   disk MB   report s")
    for ranks, one in found:
        say(
            f"{ranks:5}  {one.rows / one.wall_s:7,.0f}  {one.sent - one.rows + one.dropped:5}  "
            f"{one.cpu_s / one.wall_s:13.1%}  {one.cpu_s / one.rows * 1e6:9.1f}  {one.memory_mib:11.0f}  "
            f"{one.disk_mb:8.1f}  {one.report_s:9.2f}"
        )
    for name, field in (("CPU", "cpu_s"), ("memory", "memory_mib"), ("disk", "disk_mb"), ("report", "report_s")):
        show_exponent(f"{name} over ranks", [(ranks, getattr(one, field)) for ranks, one in found])


def show_history(quick: bool, folder: Path | None, until_s: float) -> None:
    """Longer and longer runs of 8 ranks, written directly."""
    lengths = (2_000, 20_000) if quick else (10_000, 100_000, 1_000_000, 10_000_000)
    say("ranks       steps   rows per CPU s   writer MiB   disk MB   report s   report MiB")
    found = []
    for steps in lengths:
        with tempfile.TemporaryDirectory() as temporary:
            one = long_run(8, steps, (folder or Path(temporary)) / f"{steps}", until_s)
        if one is None:
            say(f"    8  {steps:10,}   not finished within {until_s:.0f} s; the same command goes on with it")
            return
        assert one.reported_steps == steps, one
        found.append(one)
        say(
            f"{one.ranks:5}  {one.steps:10,}  {one.rows_per_cpu_s:15,.0f}  {one.writer_mib:11.0f}  {one.disk_mb:8.1f}  "
            f"{one.report_s:9.2f}  {one.report_mib:11.0f}"
        )
    for name, field in (("disk", "disk_mb"), ("report", "report_s")):
        show_exponent(f"{name} over steps", [(one.steps, getattr(one, field)) for one in found])


def say(line: str) -> None:
    """A line of the result, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the parts that are named."""
    if sys.argv[1:2] == ["report"]:
        report(Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=["flood", "ranks", "history", []], help="which; none: all")
    parser.add_argument("--quick", action="store_true", help="a short version of each")
    parser.add_argument("--ranks", type=int, nargs="+", help="how many ranks, one after the other")
    parser.add_argument("--folder", type=Path, help="where histories are written and kept, so that a run can go on")
    parser.add_argument("--until-s", type=float, default=math.inf, help="stop writing a history after so long")
    arguments = parser.parse_args()
    parts = arguments.parts or ["flood", "ranks", "history"]
    if "flood" in parts:
        show_flood(arguments.quick)
    if "ranks" in parts:
        show_ranks(arguments.quick, arguments.ranks or ((8, 64) if arguments.quick else (8, 64, 256, 1_024)))
    if "history" in parts:
        if arguments.folder is not None:
            arguments.folder.mkdir(parents=True, exist_ok=True)
        show_history(arguments.quick, arguments.folder, arguments.until_s)


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
