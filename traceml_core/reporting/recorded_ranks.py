"""Which ranks of a run were recorded: a callback may be on some only."""

from __future__ import annotations

from traceml_core.core.units import count
from traceml_core.reporting.summary import FinalSummary

MOST_NAMED = 4


def recorded_ranks(summary: FinalSummary) -> set[int]:
    """The ranks that any section has numbers of."""
    return {one.rank for section in summary.sections.values() for one in section.ranks}


def missing_ranks_note(summary: FinalSummary) -> str | None:
    """A sentence that names the ranks without numbers; null where all have some, or none has."""
    recorded, world_size = recorded_ranks(summary), summary.run.world_size
    missing = [rank for rank in range(world_size) if rank not in recorded]
    if not missing or not recorded:
        return None
    named = [count(rank) for rank in missing[:MOST_NAMED]]
    if len(missing) > MOST_NAMED:
        named.append(f"{count(len(missing) - MOST_NAMED)} more")
    who = " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
    is_one = len(missing) == 1
    others = "the other" if world_size - len(missing) == 1 else f"the other {count(world_size - len(missing))}"
    was = f"rank {who} was" if is_one else f"ranks {who} were"
    return f"{was} not recorded; the numbers are of {others}. Each rank needs a TraceMLCallback that is on"
