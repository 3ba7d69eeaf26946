"""What the section step_time is built from."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.statistics.reduced import ReducedTable


class StepTimeInputs(msgspec.Struct, frozen=True):
    """Rows of steps, of the owners of time around them, and of the host's CPUs; and the run that they belong to."""

    tables: Mapping[str, ReducedTable | None]
    run: RunShape
