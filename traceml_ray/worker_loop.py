"""The loop that Ray's workers run in the place of the user's: the user's, with this process's runtime around it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def recorded_loop(loop: Callable[..., Any], settings: dict[str, Any], aggregator: Any) -> Callable[..., Any]:
    """`loop`, recorded into the run of the actor `aggregator`. `settings` are the run's, as plain values.

    Ray sends the inner function to the workers by value. It refers to nothing of TraceML before it is called, so that
    a worker without TraceML trains all the same.
    """

    @functools.wraps(loop)  # Ray counts the parameters
    def run_loop(*arguments: Any) -> Any:
        recorded: Callable[..., Any] | None = None
        try:
            from traceml_ray.worker_run import run_recorded

            recorded = run_recorded
        except ImportError as error:
            import sys

            sys.stderr.write(f"TraceML: a worker is not recorded ({error}); install traceml-callbacks on every node\n")
        try:
            return loop(*arguments) if recorded is None else recorded(loop, arguments, settings, aggregator)
        except BaseException as error:
            # This frame is not the user's. Raised on like this, an error does not get it again (Python 3.11). Not by
            # assignment: an error's class may forbid that, as a frozen dataclass does.
            BaseException.with_traceback(error, error.__traceback__ and error.__traceback__.tb_next)
            raise

    return run_loop
