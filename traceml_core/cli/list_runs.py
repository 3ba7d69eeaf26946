"""`traceml list`: every run of a folder in one line: when, what, how it ended, what it was told."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from traceml_core.cli.failure import CommandError
from traceml_core.cli.printing import print_line
from traceml_core.cli.runs_dir_option import runs_dir_option

if TYPE_CHECKING:
    from traceml_core.reporting.stored_summary import RunBrief

# The last two are shown where a line has room for them: most folders' names tell both.
COLUMNS = ("RUN", "STATUS", "VERDICT", "DURATION", "STARTED (UTC)", "NAME")
OPTIONAL = 2
# Beyond this, a run's own name would take the place of everything else.
MOST_NAME_COLUMNS = 30
WITHOUT_TERMINAL_COLUMNS = 80


@click.command("list")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@runs_dir_option
def list_runs(form: str, runs_dir: str) -> None:
    """List the runs: status, verdict, duration.

    The newest comes first. Folders whose manifest.json cannot be read come last, as damaged.

    Example: traceml list --format json
    """
    from traceml_core.core.run_folder import RunLookupError, folders_without_manifest, run_folders
    from traceml_core.reporting.stored_summary import brief_of

    try:
        folders = [*run_folders(Path(runs_dir)), *folders_without_manifest(Path(runs_dir))]
    except RunLookupError as error:
        raise CommandError(str(error)) from error
    briefs = [brief_of(folder) for folder in folders]
    if form == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(briefs), indent=2))
    elif briefs:
        print_line("\n".join(_lines(briefs)))
    else:
        print_line(f"There are no runs in {runs_dir}. Train with a TraceMLCallback, or name another --runs-dir.")


def _lines(briefs: Sequence[RunBrief]) -> list[str]:
    """The table; its last columns are left out where it would be too wide."""
    rows = [COLUMNS, *map(_cells, briefs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else WITHOUT_TERMINAL_COLUMNS
    shown = len(COLUMNS)
    while shown > len(COLUMNS) - OPTIONAL and sum(widths[:shown]) + 2 * (shown - 1) > limit:
        shown -= 1
    return [
        "  ".join(f"{cell:{width}}" for cell, width in list(zip(row, widths, strict=True))[:shown]).rstrip()
        for row in rows
    ]


def _cells(brief: RunBrief) -> tuple[str, ...]:
    from traceml_core.core.units import MISSING, seconds
    from traceml_core.reporting.plain_text import one_line

    return (
        one_line(brief.run),
        brief.status,
        brief.problem or brief.verdict or MISSING,
        seconds(brief.duration_s),
        MISSING if brief.started_at is None else one_line(brief.started_at, 19)[:16].replace("T", " "),
        MISSING if brief.name is None else one_line(brief.name, MOST_NAME_COLUMNS),
    )
