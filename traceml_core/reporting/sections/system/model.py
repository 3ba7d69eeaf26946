"""What the section system is built from."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.statistics.reduced import ReducedTable


class SystemInputs(msgspec.Struct, frozen=True):
    """Rows of the hosts and of their GPUs, and the run that they belong to."""

    tables: Mapping[str, ReducedTable | None]
    run: RunShape
