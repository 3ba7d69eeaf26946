"""How a run ended, in one sentence."""

from __future__ import annotations

from traceml_core.core.units import count
from traceml_core.reporting.summary import RunSummary


def end_of_run(run: RunSummary) -> str | None:
    """That it failed, was interrupted or still goes on, after which step, with which error; None when it completed."""
    if run.status == "completed":
        return None
    if run.is_watched:
        return _end_of_command(run)
    if run.status == "running":
        return (
            f"Still running, after {count(run.steps)} steps." if run.steps else "Still running, before its first step."
        )
    verb = "Failed" if run.status == "failed" else "Interrupted"
    error = run.error
    if error is None:
        return f"{verb} {_after(run.steps, None)}: {_silence(run)}"
    message = f": {error.message}" if error.message else ""
    done = run.steps if error.step is None else error.step
    return f"{verb} {_after(done, error.global_step)} with {error.type}{message}"


def _end_of_command(run: RunSummary) -> str:
    if run.status == "running":
        return "Still running."
    verb = "Failed" if run.status == "failed" else "Interrupted"
    if run.error is None:
        return f"{verb}: what recorded the command ended without a word; it may have gone on."
    return f"{verb} {'by' if run.error.type.startswith('SIG') else 'with'} {run.error.type}."


def _after(steps_done: int, global_step: int | None) -> str:
    if steps_done == 0:
        return "before the first step was done"
    counted = f" (global step {count(global_step)})" if global_step is not None and global_step != steps_done else ""
    return f"after step {count(steps_done)}{counted}"


def _silence(run: RunSummary) -> str:
    """What is known where nobody told why it ended."""
    if run.framework == "ray":  # its owner trains nothing
        return "the actor that records it ended without a word; training may have gone on."
    return "the training process ended without a word."
