"""What the section step_time is built from."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.history.joined_steps import JoinedSteps
from traceml_core.statistics.reduced import ReducedTable


class StepTimeInputs(msgspec.Struct, frozen=True):
    """Rows of steps, of the owners of time around them, and of the host's CPUs; and the run that they belong to.

    `joined` holds the steps of several ranks beyond the first, null where there are no more than those.
    """

    tables: Mapping[str, ReducedTable | None]
    run: RunShape
    joined: JoinedSteps | None = None
