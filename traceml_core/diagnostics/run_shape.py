"""What every diagnosis may know about its run beside the rows: who took part, for how long, how it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from traceml_core.core.run_folder import Ending
from traceml_core.history.reader import RankRecord
from traceml_core.telemetry.facts import LoaderFacts, RunFacts
from traceml_core.telemetry.messages import RunError, RunStatus


class RankShape(msgspec.Struct, frozen=True, kw_only=True):
    """One rank. `wall_ns` is its run time over all its incarnations, so far where the run goes on."""

    rank: int
    wall_ns: int
    incarnations: int = 1
    host: str = ""


class RunShape(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `error` is what ended a failed or interrupted one, null where nothing is known of it."""

    ranks: tuple[RankShape, ...] = ()
    world_size: int = 1
    facts: RunFacts | None = None
    status: RunStatus = "completed"
    error: RunError | None = None

    @property
    def wall_s(self) -> float:
        """Wall time in seconds, mean over ranks; 0 where no rank is known."""
        if not self.ranks:
            return 0.0
        return sum(rank.wall_ns for rank in self.ranks) / len(self.ranks) / 1e9

    @property
    def ranks_a_host(self) -> int:
        """The most ranks that share a host; 1 where none is known."""
        return max(Counter(rank.host for rank in self.ranks).values(), default=1)

    @property
    def framework(self) -> str | None:
        """What trains, such as 'lightning'; null where it is not known."""
        return self.facts.framework if self.facts is not None else None

    @property
    def device(self) -> str | None:
        """The torch device type, such as 'cpu' or 'cuda'."""
        return self.facts.device if self.facts is not None else None

    @property
    def on_accelerator(self) -> bool:
        """Whether the ranks are known to train on something else than the CPU."""
        return self.device not in (None, "cpu")

    @property
    def loader(self) -> LoaderFacts:
        """How the training loader was built; nulls where it is not known."""
        known = self.facts.loader if self.facts is not None else None
        return known if known is not None else LoaderFacts()

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """The keys of phases that could not be separated; their time is unattributed."""
        return self.facts.unmeasured if self.facts is not None else ()


def run_shape_of(
    records: Sequence[RankRecord],
    facts: RunFacts | None,
    *,
    status: RunStatus | None = None,
    ending: Ending | None = None,
) -> RunShape:
    """The shape of a run from what its ranks said.

    `records` are in the order in which they came: the wall clock may be set between two lives of one rank. `status` is
    given by whoever knows better than the ranks (an aggregator whose owner is gone); else a rank that failed makes the
    run failed, and so on by how much it matters. `ending` is the owner's word, and goes before both.
    """
    ranks = []
    for rank in sorted({record.rank for record in records}):
        mine = [record for record in records if record.rank == rank]
        wall_ns = sum(record.elapsed_ns if record.wall_ns is None else record.wall_ns for record in mine)
        ranks.append(RankShape(rank=rank, wall_ns=wall_ns, incarnations=len(mine), host=mine[-1].host))
    last = list({record.rank: record for record in records}.values())
    stati = {record.status for record in last}
    told: RunStatus = next((one for one in _BY_WEIGHT if one in stati), "running")
    if ending is not None:
        status = ending.status
    return RunShape(
        ranks=tuple(ranks),
        world_size=max((record.world_size for record in records), default=1),
        facts=facts,
        status=status if status is not None else told,
        error=_cause(last, ending),
    )


def _cause(last: Sequence[RankRecord], ending: Ending | None) -> RunError | None:
    """What ended the run. A rank that died could not say so, and others may have failed because of that."""
    told = [record.error for record in sorted(last, key=_weight) if record.error is not None]
    heard = () if ending is None else ending.errors
    spoke = {record.rank for record in last if record.status != "running"}
    unsaid = [error for error in heard if error.rank is not None and error.rank not in spoke]
    if told and not unsaid:
        return told[0]
    first = next(iter([*unsaid, *heard]), None)
    return None if first is None else RunError(first.type, first.message)


def _weight(record: RankRecord) -> tuple[int, int]:
    return _BY_WEIGHT.index(record.status), record.rank


_BY_WEIGHT: tuple[RunStatus, ...] = ("failed", "running", "interrupted", "completed")
