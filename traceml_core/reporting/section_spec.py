"""What a section of the report is: a name and four functions, registered in `reporting/final.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.reporting.read_once import TablesReadOnce
from traceml_core.reporting.summary import Hardware, RunSummary, Section, TimeBudget


class CardLine(msgspec.Struct, frozen=True):
    """One fact for the terminal card. Lines of the same title share a row; `text` is plain and short."""

    title: str
    text: str


class RunNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """What a section knows of the run as a whole, for the summary's own fields."""

    steps: int
    redone_steps: int = 0
    samples_per_s: float | None
    tokens_per_s: float | None
    budget: TimeBudget


class BuiltSection(msgspec.Struct, frozen=True):
    """A section, and what it knows of the run as a whole: step_time its numbers, system its hardware."""

    section: Section
    run_numbers: RunNumbers | None = None
    hardware: Hardware | None = None


class SectionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One section. Each function lives in the module of its name in `reporting/sections/<name>/`.

    `load` (loader) reads the section's inputs, a type of its own; `build` (builder) judges them, by the live policy
    where the second argument says so; `card_lines` and `table_lines` (formatter) give its facts for the card and its
    numbers as a text table. All may raise: the section then says NO_DATA or stays silent, and errors.log says why.
    """

    name: str
    load: Callable[[TablesReadOnce, RunShape], Any]
    build: Callable[[Any, bool], BuiltSection]
    card_lines: Callable[[Section, RunSummary], list[CardLine]]
    table_lines: Callable[[Section], list[str]]
