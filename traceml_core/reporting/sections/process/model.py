"""What the section process is built from."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.statistics.reduced import ReducedTable


class ProcessInputs(msgspec.Struct, frozen=True):
    """Rows of the training processes and of their memory, and the run that they belong to."""

    tables: Mapping[str, ReducedTable | None]
    run: RunShape
