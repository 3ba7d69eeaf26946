"""Keeps this package's frames out of the tracebacks of other people's errors."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import traceml_core
from traceml_core.loggers.error_log import fail_open, get_error_logger

PLACE = Path(traceml_core.__file__).parents[1]
PACKAGES = tuple(str(PLACE / name) + "/" for name in ("traceml_core", "traceml_hf", "traceml_lightning", "traceml_ray"))
logger = get_error_logger("OwnFrames")


def hide_own_frames(error: BaseException) -> None:
    """Relink the tracebacks of an error, and of those it came from, past frames of ours.

    A stand-in for a loader or a method adds such frames. What is printed is then what would be printed without TraceML.
    An error that ends in a frame of ours is ours, and keeps them. Never raises, whatever the class of an error allows.
    """
    with fail_open(logger, "hiding frames"):
        _hide_in_all(error)


def _hide_in_all(error: BaseException) -> None:
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        # Not by assignment: an error's class may forbid that, as a frozen dataclass does.
        BaseException.with_traceback(one, _without_own_frames(one.__traceback__))
        pending += [one.__cause__, one.__context__]


def _without_own_frames(traceback: TracebackType | None) -> TracebackType | None:
    entries = []
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next
    kept = [entry for entry in entries if not entry.tb_frame.f_code.co_filename.startswith(PACKAGES)]
    if not kept or kept[-1] is not entries[-1]:
        return entries[0] if entries else None
    for entry, following in zip(kept, [*kept[1:], None], strict=True):
        entry.tb_next = following
    return kept[0]
