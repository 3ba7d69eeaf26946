"""How a `fit` ended, as the driver knows it: which worker died, too, which no worker could tell."""

from __future__ import annotations

from collections.abc import Mapping

from traceml_core.core.run_folder import Ending, OwnerError


def ending_of(error: BaseException | None, record_messages: bool) -> Ending:
    """The end of the run whose `fit` raised `error`; of a completed one where it raised none.

    Ray tells of workers by rank. What it tells of one that died ends in the line that says how.
    """
    if error is None:
        return Ending(status="completed")
    if not isinstance(error, Exception):  # Ctrl-C: Ray makes it a SystemExit with the code 0
        return Ending(status="interrupted", errors=(OwnerError(rank=None, type=type(error).__name__, message=None),))
    failures = getattr(error, "worker_failures", None)  # of WorkerGroupError, which older versions of Ray do not have
    if not isinstance(failures, Mapping) or not failures:
        cause = error.__cause__ or error
        return Ending(status="failed", errors=(_told(None, cause, record_messages),))
    errors = [_told(rank, failure, record_messages) for rank, failure in sorted(failures.items())]
    return Ending(status="failed", errors=tuple(errors))


def _told(rank: int | None, error: BaseException, record_messages: bool) -> OwnerError:
    message = None
    if record_messages:
        message = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), None)
        if rank is not None:
            message = f"rank {rank}: {message}" if message else f"rank {rank}"
    return OwnerError(rank=rank, type=type(error).__name__, message=message)
