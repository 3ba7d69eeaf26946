"""Reads what the section step_memory is built from."""

from __future__ import annotations

from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.diagnostics.step_memory.context import TABLES
from traceml_core.reporting.read_once import TablesReadOnce
from traceml_core.reporting.sections.step_memory.model import StepMemoryInputs


def load(tables: TablesReadOnce, run: RunShape) -> StepMemoryInputs:
    """The tables of this section; those that the history does not have are null.

    Raises:
        HistoryUnreadableError: the file is damaged.
    """
    return StepMemoryInputs({name: tables.reduced(name) for name in TABLES}, run)
