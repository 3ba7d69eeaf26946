"""How a `with` block's end is told as a run's."""

from __future__ import annotations

from traceml_core.runtime.own_frames import hide_own_frames
from traceml_core.telemetry.messages import RunStatus


def status_of(error: BaseException | None) -> RunStatus:
    """The status of a run whose block ended with `error`; `sys.exit()` without a code is a plain end.

    The error goes on to whoever prints it, as it would be without TraceML.
    """
    if error is None:
        return "completed"
    hide_own_frames(error)
    if isinstance(error, SystemExit) and not error.code:
        return "completed"
    return "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "failed"
