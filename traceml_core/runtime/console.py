"""What a person who trains sees of TraceML: lines and the card, on stderr. stdout is never written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from traceml_core.core.settings import ReportStyle

PLAIN_COLUMNS = 80
NARROWEST = 40


class Terminal(msgspec.Struct, frozen=True):
    """What stderr can show: how many columns, and whether colour and symbols."""

    columns: int
    color: bool


def say(message: str) -> None:
    """Say one line."""
    show(f"TraceML: {message}")


def say_in_passing(message: str) -> None:
    """Say one line while training goes on: on a terminal alone, and no longer than it is wide."""
    if _is_terminal():
        room = max(terminal().columns, NARROWEST) - len("TraceML: ") - 1
        say(message if len(message) <= room else f"{message[: room - 3]}...")


def show(text: str) -> None:
    """Write a text and the end of its last line to stderr; where there is none, or it is closed or broken, nowhere.

    Whatever a script's own stand-in for stderr raises or lacks is survived. A progress bar of tqdm's on the same
    terminal gives way and comes back below. One of rich's needs no word of ours: while it is drawn, it stands in for
    stderr itself.
    """
    if sys.stderr is None:
        return
    with suppress(Exception):
        write = _beside_bars()
        if write is None:
            sys.stderr.write(text.rstrip("\n") + "\n")
        else:
            write(text.rstrip("\n"), file=sys.stderr)
        sys.stderr.flush()


def _beside_bars() -> Callable[..., None] | None:
    """What writes a text where bars of tqdm's are drawn; None where there are none."""
    bars = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    if bars is None or not getattr(bars, "_instances", None) or not _is_terminal():
        return None
    write: Callable[..., None] = bars.write
    return write


def terminal() -> Terminal:
    """The terminal that stderr is; 80 columns without colour where it is none."""
    if _is_terminal():
        with suppress(Exception):  # one that is no file
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
            plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
            color = not plain and (sys.stderr.encoding or "").lower().startswith("utf")
            return Terminal(columns or PLAIN_COLUMNS, color)
    return Terminal(PLAIN_COLUMNS, False)


def _is_terminal() -> bool:
    with suppress(Exception):  # there is no stderr, it is closed, or it is somebody's own
        return bool(sys.stderr.isatty())
    return False


def report_style(asked_for: ReportStyle | None) -> ReportStyle:
    """How the report of this process's next run is printed: in full for the first, then in a line, if not asked for."""
    return asked_for or ("line" if _RUNS else "full")


def run_was_opened() -> None:
    """Have the next run know that it is not the first whose report is printed here."""
    _RUNS.append(True)


def shown(path: Path) -> str:
    """A path as a person would type it: relative to the working directory where it lies in it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


_RUNS: list[bool] = []
