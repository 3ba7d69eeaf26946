"""Steps of all ranks, joined while the rows of all are still there: what rows tell only beside each other's."""

from __future__ import annotations

import sqlite3

import msgspec
import numpy as np

from traceml_core.core.phases import Phase
from traceml_core.history.tables import RowTable
from traceml_core.statistics.derived import Arrays, derive
from traceml_core.statistics.rank_join import RankJoin, join_rows, merge_joins, pack_join, unpack_join

TABLE = "step_time"
# Steps are joined in portions of at least so many, and wait for a rank that is behind, or has yet to come, while all of
# them hold no more rows than this; then they are joined without it.
PORTION_STEPS = 256
LARGEST_ROWS = 100_000


class _Rows:
    """What waits of one rank: step numbers and (phases, steps) nanoseconds, in order of arrival."""

    def __init__(self) -> None:
        self.steps = np.zeros(0)
        self.phase_ns = np.zeros((len(Phase), 0))

    def add(self, steps: np.ndarray, phase_ns: np.ndarray) -> None:
        self.steps = np.concatenate([self.steps, steps])
        self.phase_ns = np.concatenate([self.phase_ns, phase_ns], axis=1)

    def take(self, until: float) -> tuple[np.ndarray, np.ndarray]:
        """Give away what lies up to a step; of a step that was done twice, the last."""
        mine = np.flatnonzero(self.steps <= until)
        last = mine.size - 1 - np.unique(self.steps[mine][::-1], return_index=True)[1]
        taken = self.steps[mine[last]], self.phase_ns[:, mine[last]]
        rest = self.steps > until
        self.steps, self.phase_ns = self.steps[rest], self.phase_ns[:, rest]
        return taken


class RankWindow:
    """Joins the steps of ranks as they are rolled up, in the same transaction.

    Steps up to `after_step` are among the first rows of their ranks, which stay; reports join those themselves, as they
    do the steps beyond `until_step`, whose rows are still kept. A step that is done again after it was joined is not
    joined again. What waits is read back from the kept rows after a restart.
    """

    def __init__(self, connection: sqlite3.Connection, table: RowTable) -> None:
        """Join the steps of `table`."""
        self._connection = connection
        self._table = table
        self._known = False
        self._waiting: dict[int, _Rows] = {}
        self._ranks: dict[int, int] = {}
        self._world_size = 0
        self._after = self._until = -np.inf
        self._joined: RankJoin | None = None

    def forget(self) -> None:
        """A transaction was undone: what was known of the file is no longer true."""
        self._known = False

    def begin(self, source: int, detail: int) -> None:
        """The first rows of a source are complete, `detail` of them or more: later ones will be rolled up."""
        self._know()
        if self._after == -np.inf:
            # The record before the first step is one of the first rows, and no step.
            first, steps = self._connection.execute(
                f'SELECT min(step), count(step) FROM (SELECT step FROM "{TABLE}" WHERE source = ? '
                "ORDER BY rowid LIMIT ?)",
                (source, detail),
            ).fetchone()
            if first is None:
                return
            self._after = self._until = float(first + steps - 1)
            self._keep()
        self._read_back("t.source = ? AND t.rowid <= r.head_end", source)

    def add(self, source: int, derived: Arrays) -> int:
        """These rows of a source were rolled up; how many of its rank still wait, and have to be kept."""
        self._know()
        if self._after == -np.inf:
            return 0
        rank = self._rank_of(source)
        self._take_in(rank, derived)
        reached = self._reached()
        if reached - self._until >= PORTION_STEPS:
            self._join(reached)
        return int(self._waiting[rank].steps.size)

    def _reached(self) -> float:
        """The step up to which all ranks have come; those that are far behind are left out where too much waits."""
        sizes = {rank: rows.steps.size for rank, rows in self._waiting.items()}
        behind = len(sizes) < self._world_size or not min(sizes.values())
        if sum(sizes.values()) > LARGEST_ROWS:
            least = max(sizes.values()) / 2
        elif behind:
            return -np.inf
        else:
            least = 0
        return min(float(self._waiting[rank].steps.max()) for rank, size in sizes.items() if size > least)

    def _join(self, until: float) -> None:
        parts = {rank: rows.take(until) for rank, rows in self._waiting.items()}
        ranks = np.concatenate([np.full(steps.size, rank, np.int64) for rank, (steps, _) in parts.items()])
        steps = np.concatenate([steps for steps, _ in parts.values()])
        new = join_rows(ranks, steps, np.concatenate([phase_ns for _, phase_ns in parts.values()], axis=1))
        if np.unique(ranks).size == 1:
            new = msgspec.structs.replace(new, incomplete_steps=steps.size)
        self._until = until
        self._joined = new if self._joined is None else merge_joins([self._joined, new])
        self._keep()

    def _keep(self) -> None:
        joined = None if self._joined is None else pack_join(self._joined)
        row = (self._after, self._until, joined)
        self._connection.execute("INSERT OR REPLACE INTO rank_joins VALUES (1, ?, ?, ?)", row)

    def _take_in(self, rank: int, derived: Arrays) -> None:
        new = np.flatnonzero(derived["step"] > self._until)
        phase_ns = np.stack([derived[f"{phase.key}_ns"][new] for phase in Phase])
        self._waiting.setdefault(rank, _Rows()).add(derived["step"][new], phase_ns)

    def _rank_of(self, source: int) -> int:
        if source not in self._ranks:
            rows = self._connection.execute("SELECT source, rank, world_size FROM ranks").fetchall()
            self._ranks = {known: rank for known, rank, _ in rows}
            self._world_size = max(max(size for *_, size in rows), len(set(self._ranks.values())))
        return self._ranks[source]

    def _know(self) -> None:
        if self._known:
            return
        self._known = True
        self._waiting, self._ranks = {}, {}
        self._after = self._until = -np.inf
        self._joined = read_join(self._connection)
        row = self._connection.execute("SELECT after_step, until_step FROM rank_joins").fetchone()
        if row is not None:
            self._after, self._until = row
            self._read_back("t.rowid <= r.rolled_end AND t.step > ?", self._until)

    def _read_back(self, where: str, value: float) -> None:
        """Take in kept rows that were rolled up, or will not be."""
        from traceml_core.history.rollup import columns_of_rows

        names = ", ".join(f't."{column.name}"' for column in self._table.columns)
        rows = self._connection.execute(
            f'SELECT t.source, {names} FROM "{TABLE}" AS t JOIN rolled AS r ON r.source = t.source AND r.tbl = ? '
            f"WHERE {where} ORDER BY t.rowid",
            (TABLE, value),
        ).fetchall()
        by_source: dict[int, list[tuple[object, ...]]] = {}
        for source, *row in rows:
            by_source.setdefault(source, []).append(tuple(row))
        for source, mine in by_source.items():
            self._take_in(self._rank_of(source), derive(TABLE, columns_of_rows(self._table, mine)[1]))


def read_join(connection: sqlite3.Connection) -> RankJoin | None:
    """What has been joined so far; null where nothing has."""
    row = connection.execute("SELECT joined FROM rank_joins WHERE joined IS NOT NULL").fetchone()
    return None if row is None else unpack_join(row[0])
