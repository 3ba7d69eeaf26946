"""A run as a trace for Perfetto: a track a rank with its steps and their phases, and counters of what was sampled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import msgspec
import numpy as np

from traceml_core.core.units import count
from traceml_core.history.reader import Columns, HistoryReader, RankRecord
from traceml_core.reporting.export.counters import counter_events
from traceml_core.reporting.export.step_slices import LAYOUT, StepSlices, lives, phase_ends_ns, step_slices
from traceml_core.reporting.export.trace_events import Event, Named, Slice, write_trace_file
from traceml_core.reporting.summary import FinalSummary
from traceml_core.statistics.reduced import reduced

STEP_TIME = "step_time"
# What is sampled once a node, and not of a rank.
HOST_TABLES = frozenset(("system", "gpu"))

# Numbers of processes and tracks as the format wants them, of which each is used once: 0 is the idle process.
FIRST_RANK_PID, FIRST_LATER_LIFE_TID, FIRST_HOST_PID = 1, 1_000_000, 2_000_000

# A slice's category: whether it is one row, or a bucket of many.
ONE_STEP, ROLLED_UP = "step", "rolled_up"

NOTE = (
    "The phases of a step are laid out in a fixed order: how long each took was measured, not when. "
    "A slice 'steps A-B' is a roll-up of many steps; its phases are their sums."
)


class Life(msgspec.Struct, frozen=True, eq=False):
    """One start of a rank: its track, and its slices."""

    rank: int
    incarnation: int
    pid: int
    tid: int
    slices: StepSlices


def write_trace(file: BinaryIO, reader: HistoryReader, summary: FinalSummary) -> int:
    """Write the trace of a run; how many events it has.

    Raises:
        HistoryUnreadableError: the file is damaged.
    """
    ranks = reader.ranks()
    found = _lives(reader)
    origin_ns = min((int(life.slices.started_ns[0]) for life in found if life.slices.started_ns.size), default=None)
    if origin_ns is None:
        origin_ns = min((record.started_unix_ns for record in ranks), default=0)
    issue = summary.primary_diagnosis
    about = {
        "run": summary.run.run_id,
        "name": summary.run.name,
        "status": summary.run.status,
        "verdict": issue.label,
        "summary": issue.summary,
        "steps": summary.run.steps,
        "started_unix_ns": origin_ns,
        "note": NOTE,
    }
    return write_trace_file(file, _events(reader, ranks, found, origin_ns), about)


def _events(
    reader: HistoryReader, ranks: Sequence[RankRecord], found: Sequence[Life], origin_ns: int
) -> Iterator[Event]:
    hosts = {host: FIRST_HOST_PID + number for number, host in enumerate(dict.fromkeys(one.host for one in ranks))}
    yield from _names(ranks, found, hosts)
    for life in found:
        yield from _life_events(life, origin_ns)
    clocks = {(life.rank, life.incarnation): life.slices for life in found}
    host_pids = {(one.rank, one.incarnation): hosts[one.host] for one in ranks}
    rank_pids = {(one.rank, one.incarnation): FIRST_RANK_PID + one.rank for one in ranks}
    for table in reader.tables():
        if table != STEP_TIME:
            pids = host_pids if table in HOST_TABLES else rank_pids
            yield from counter_events(reader, table, pids, clocks, origin_ns)


def _lives(reader: HistoryReader) -> list[Life]:
    columns, rolled = reader.columns(STEP_TIME), reader.rolled(STEP_TIME)
    found: list[Life] = []
    for rank, incarnation in lives(columns["rank"], columns["incarnation"]) if columns else []:
        kept = (columns["rank"] == rank) & (columns["incarnation"] == incarnation)
        mine = None if rolled is None else (rolled.rank == rank) & (rolled.incarnation == incarnation)
        buckets = rolled.take(mine) if rolled is not None and mine is not None and mine.any() else None
        slices = step_slices(reduced(STEP_TIME, _taken(columns, kept)), buckets)
        pid = FIRST_RANK_PID + rank
        is_first = all(life.rank != rank for life in found)
        found.append(Life(rank, incarnation, pid, pid if is_first else FIRST_LATER_LIFE_TID + len(found), slices))
    return found


def _taken(columns: Columns, rows: np.ndarray) -> Columns:
    return {name: values[rows] for name, values in columns.items()}


def _names(ranks: Sequence[RankRecord], found: Sequence[Life], hosts: Mapping[str, int]) -> Iterator[Event]:
    for record in {one.rank: one for one in ranks}.values():
        pid = FIRST_RANK_PID + record.rank
        yield Named(name="process_name", pid=pid, args={"name": f"rank {record.rank} on {record.host}"})
        yield Named(name="process_sort_index", pid=pid, args={"sort_index": record.rank})
    starts: dict[int, int] = {}
    for life in found:
        starts[life.rank] = starts.get(life.rank, 0) + 1
        again = f", start {starts[life.rank]}" if starts[life.rank] > 1 else ""
        yield Named(name="thread_name", pid=life.pid, tid=life.tid, args={"name": f"rank {life.rank} steps{again}"})
    for host, pid in hosts.items():
        yield Named(name="process_name", pid=pid, args={"name": f"host {host}"})
        yield Named(name="process_sort_index", pid=pid, args={"sort_index": pid})


def _life_events(life: Life, origin_ns: int) -> Iterator[Event]:
    """Every slice, and in it the slices of its phases."""
    slices = life.slices
    ends_ns = phase_ends_ns(slices)

    def drawn(name: str, began_ns: int, ended_ns: int, rows: int, args: dict[str, Any]) -> Slice:
        """In microseconds from the origin: exact to the nanosecond for a run of weeks."""
        return Slice(
            name=name,
            cat=ONE_STEP if rows == 1 else ROLLED_UP,
            pid=life.pid,
            tid=life.tid,
            ts=(began_ns - origin_ns) / 1_000,
            dur=(ended_ns - began_ns) / 1_000,
            args=args,
        )

    for place in range(slices.rows.size):
        rows, began_ns = int(slices.rows[place]), int(slices.started_ns[place])
        name, args = _title(slices, place, rows)
        yield drawn(name, began_ns, int(slices.ended_ns[place]), rows, args)
        spent = slices.phase_ns[place].tolist()
        for phase, until_ns, spent_ns in zip(LAYOUT, ends_ns[place].tolist(), spent, strict=True):
            if until_ns > began_ns:
                yield drawn(phase.key, began_ns, until_ns, rows, _true_length(spent_ns, until_ns - began_ns, rows))
            began_ns = until_ns


def _title(slices: StepSlices, place: int, rows: int) -> tuple[str, dict[str, Any]]:
    first, last = slices.first_step[place], slices.last_step[place]
    if np.isnan(first):
        return ("outside steps" if rows == 1 else "outside steps, rolled up"), {"rows": rows}
    if rows == 1:
        return f"step {int(first)}", {"step": int(first)}
    name = f"steps {int(first)}-{int(last)}, {count(rows)} rolled up"
    return name, {"first_step": int(first), "last_step": int(last), "rows": rows}


def _true_length(spent_ns: float, shown_ns: int, rows: int) -> dict[str, Any]:
    """What a slice's length does not say: the mean over a bucket's rows, or the time where it was made to fit."""
    if rows > 1:
        return {"mean_ns": round(spent_ns / rows), "rows": rows}
    return {"took_ns": round(spent_ns)} if spent_ns - shown_ns > 1_000 else {}
