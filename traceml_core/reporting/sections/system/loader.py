"""Reads what the section system is built from."""

from __future__ import annotations

from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.diagnostics.system.context import TABLES
from traceml_core.reporting.read_once import TablesReadOnce
from traceml_core.reporting.sections.system.model import SystemInputs


def load(tables: TablesReadOnce, run: RunShape) -> SystemInputs:
    """The tables of this section; those that the history does not have are null.

    Raises:
        HistoryUnreadableError: the file is damaged.
    """
    return SystemInputs({name: tables.reduced(name) for name in TABLES}, run)
