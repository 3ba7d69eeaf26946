"""What a section of the report is: four functions and a name, registered in `reporting/final.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.history.reader import HistoryReader
from traceml_core.reporting.summary import RunSummary, Section


class CardLine(msgspec.Struct, frozen=True):
    """One fact for the terminal card. Lines of the same title share a row; `text` is plain and short."""

    title: str
    text: str


class SectionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One section. Each function lives in the module of its name in `reporting/sections/<name>/`.

    `load` reads the section's inputs from the history (its own type, passed on as it is); `build` judges them, by the
    live policy where `live`; `card_lines` gives its facts for the card and `table_lines` its numbers as a text table.
    `load` and `build` may raise: the section then says NO_DATA, and errors.log why.
    """

    name: str
    load: Callable[[HistoryReader, RunShape], Any]
    build: Callable[[Any, bool], Section]
    card_lines: Callable[[Section, RunSummary], list[CardLine]]
    table_lines: Callable[[Section], list[str]]
