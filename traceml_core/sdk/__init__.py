"""The sdk: the same signals for a hand-written loop."""

from traceml_core.sdk.traced_run import TracedRun, trace_run

__all__ = ["TracedRun", "trace_run"]
