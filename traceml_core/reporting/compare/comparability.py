"""What is not alike between two sides: named first, because times of unlike jobs are no measure of one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from traceml_core.core.units import MISSING, byte_size
from traceml_core.reporting.compare.model import Difference
from traceml_core.reporting.plain_text import one_line
from traceml_core.reporting.summary import RunSummary

_MOST_LETTERS = 60

# What makes times incomparable by itself, and what may be the very change that is looked at.
_WEIGHTY: tuple[tuple[str, Callable[[RunSummary], object]], ...] = (
    ("device", lambda run: run.device),
    ("GPUs", lambda run: ", ".join(run.hardware.gpus) or None),
    ("CPUs", lambda run: None if run.hardware.cpus is None else f"{run.hardware.cpus:g}"),
    ("memory", lambda run: None if run.hardware.memory_bytes is None else byte_size(run.hardware.memory_bytes)),
    ("nodes", lambda run: run.nodes),
    ("world size", lambda run: run.world_size),
    ("batch size", lambda run: run.batch_size),
    ("accumulation", lambda run: run.accumulation),
    ("precision", lambda run: run.precision),
    ("status", lambda run: run.status),
)
_OTHERS: tuple[tuple[str, Callable[[RunSummary], object]], ...] = (
    ("framework", lambda run: run.framework),
    ("loader workers", lambda run: None if run.loader is None else run.loader.num_workers),
    ("prefetch factor", lambda run: None if run.loader is None else run.loader.prefetch_factor),
    ("persistent workers", lambda run: None if run.loader is None else run.loader.persistent_workers),
)


def differences(a: Sequence[RunSummary], b: Sequence[RunSummary]) -> list[Difference]:
    """The facts in which the sides differ, weighty ones first. A side whose own runs differ shows all its values."""
    names = sorted({name for run in (*a, *b) for name in run.versions})
    versions = [(f"{name} version", lambda run, name=name: run.versions.get(name)) for name in names]
    found = []
    for weighty, facts in ((True, _WEIGHTY), (False, (*_OTHERS, *versions))):
        for what, read in facts:
            of_a, of_b = ({_text(read(run)) for run in side} for side in (a, b))
            if of_a != of_b or len(of_a) > 1:
                shown = [", ".join(sorted(values)) for values in (of_a, of_b)]
                found.append(Difference(what=one_line(what, _MOST_LETTERS), a=shown[0], b=shown[1], weighty=weighty))
    return found


def _text(value: object) -> str:
    return MISSING if value is None else one_line(str(value), _MOST_LETTERS)
