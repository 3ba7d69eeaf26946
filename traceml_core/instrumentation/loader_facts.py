"""What a training loader says of itself, told from its attributes: nothing is imported, nothing is loaded."""

from __future__ import annotations

from typing import Any

from traceml_core.telemetry.facts import LoaderFacts


def loader_facts(loader: Any) -> dict[str, Any]:
    """Fields of `RunFacts` for `Session.describe`: `loader`, and `batch_size` where the loader has one."""
    pinned = getattr(loader, "pin_memory", None)
    facts: dict[str, Any] = {
        "loader": LoaderFacts(
            num_workers=getattr(loader, "num_workers", None),
            prefetch_factor=getattr(loader, "prefetch_factor", None),
            persistent_workers=getattr(loader, "persistent_workers", None),
            pin_memory=pinned if isinstance(pinned, bool) else None,  # other things have a method of this name
        )
    }
    batch_size = getattr(loader, "batch_size", None)
    if batch_size is None:
        batch_size = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    return facts if batch_size is None else {**facts, "batch_size": batch_size}
