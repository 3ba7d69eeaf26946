"""What the section step_memory is built from."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.statistics.reduced import ReducedTable


class StepMemoryInputs(msgspec.Struct, frozen=True):
    """Rows of the device allocator's state in each step, and the run that they belong to."""

    tables: Mapping[str, ReducedTable | None]
    run: RunShape
