"""The run that a command is given: a folder, its name in the runs folder, or a summary file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from traceml_core.cli.failure import CommandError
from traceml_core.core.presence import is_file

if TYPE_CHECKING:
    from traceml_core.reporting.summary import FinalSummary


def load_run(run: str | None, runs_dir: str, rebuild: bool = False) -> tuple[FinalSummary, Path]:
    """The summary of a run, and where it lies; the newest run where none is given.

    Raises:
        CommandError: there is no such run, or its summary cannot be had.
    """
    from traceml_core.core.run_folder import RunLookupError, find_run
    from traceml_core.reporting.stored_summary import SummaryUnavailableError, load_summary, read_summary

    try:
        if run is not None and is_file(Path(run)) and Path(run).suffix == ".json" and not rebuild:
            return read_summary(Path(run)), Path(run)
        folder = find_run(run, runs_dir)
        log_failures_in(folder)
        return load_summary(folder, rebuild=rebuild), folder
    except (RunLookupError, SummaryUnavailableError) as error:
        raise CommandError(str(error)) from error


def log_failures_in(folder: Path) -> None:
    """Have what fails from now on written to this run's errors.log, where reports say that it is."""
    from traceml_core.loggers.error_log import close_error_log, open_error_log

    close_error_log()  # what failed with another run is not this one's, and a cause may come again
    open_error_log(folder / "errors.log")
