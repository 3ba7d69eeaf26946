"""Reads what the section process is built from."""

from __future__ import annotations

from traceml_core.diagnostics.process.context import TABLES
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.reporting.read_once import TablesReadOnce
from traceml_core.reporting.sections.process.model import ProcessInputs


def load(tables: TablesReadOnce, run: RunShape) -> ProcessInputs:
    """The tables of this section; those that the history does not have are null.

    Raises:
        HistoryUnreadableError: the file is damaged.
    """
    return ProcessInputs({name: tables.reduced(name) for name in TABLES}, run)
