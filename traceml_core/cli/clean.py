"""`traceml clean`: delete old runs, and nothing but runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from traceml_core.cli.failure import CommandError
from traceml_core.cli.printing import print_line
from traceml_core.cli.runs_dir_option import runs_dir_option
from traceml_core.reporting.plain_text import one_line

if TYPE_CHECKING:
    from traceml_core.reporting.old_runs import OldRun


@click.command()
@click.option("--keep", required=True, type=click.IntRange(min=0), metavar="N", help="Keep the N newest runs.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@runs_dir_option
def clean(keep: int, yes: bool, runs_dir: str) -> None:
    """Delete all runs but the newest N; shows them first, and asks.

    Left alone is whatever is not a finished run that TraceML made: other folders, links, runs still going on, and run
    folders that hold files of somebody else's.

    Example: traceml clean --keep 20
    """
    from traceml_core.core.run_folder import RunLookupError
    from traceml_core.core.units import byte_size, count
    from traceml_core.reporting.old_runs import old_runs

    try:
        old = old_runs(Path(runs_dir), keep)
    except RunLookupError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename} cannot be read ({error.strerror}); mend that and try again") from error
    for run in old:
        if run.kept_because:
            _say_left_alone(run.path, run.kept_because)
    doomed = [run for run in old if not run.kept_because]
    if not doomed:
        print_line(f"Nothing to delete in {runs_dir} beside the newest {count(keep)}.")
        return
    _show(doomed)
    freed = sum(run.size_bytes for run in doomed)
    what = f"{count(len(doomed))} run{'' if len(doomed) == 1 else 's'}, {byte_size(freed)}"
    if not yes:
        _ask(what)
    deleted = sum(_delete(run.path) for run in doomed)
    print_line(f"Deleted {what}." if deleted == len(doomed) else f"Deleted {count(deleted)} of {what}.")


def _delete(path: Path) -> bool:
    """Delete a run; whether that was done, for by now there may be a reason not to."""
    from traceml_core.reporting.old_runs import delete_run

    try:
        reason = delete_run(path)
    except OSError as error:
        raise CommandError(f"{path} cannot be deleted ({error.strerror}); mend that and try again") from error
    if reason:
        _say_left_alone(path, reason)
    return reason is None


def _say_left_alone(path: Path, reason: str) -> None:
    click.echo(one_line(f"{path.name} is left alone: {reason}"), err=True)


def _show(runs: list[OldRun]) -> None:
    from traceml_core.core.units import byte_size

    columns = max(len(run.path.name) for run in runs)
    for run in runs:
        print_line(f"{one_line(run.path.name):{columns}}  {byte_size(run.size_bytes):>9}")


def _ask(what: str) -> None:
    """Go on only where somebody says yes."""
    if not sys.stdin.isatty():
        raise CommandError(f"there is no terminal to ask in; add --yes to delete {what}")
    if not click.confirm(f"Delete {what}?"):
        click.echo("Nothing was deleted.")
        raise click.exceptions.Exit(0)
