"""`traceml list`: every run of a folder in one line: when, what, how it ended, what it was told."""

from __future__ import annotations

from pathlib import Path

import click

from traceml_core.cli.runs_dir_option import runs_dir_option
from traceml_core.core.run_folder import run_folders


@click.command("list")
@runs_dir_option
def list_runs(runs_dir: str) -> None:
    """List the runs, the newest first: folder, status, verdict, duration.

    Example: traceml list
    """
    from traceml_core.reporting.stored_summary import RunBrief, brief_of

    folders = run_folders(Path(runs_dir))
    if not folders:
        click.echo(f"There are no runs in {runs_dir}. Train with a TraceMLCallback, or name another --runs-dir.")
        return
    briefs = [(folder, brief_of(folder)) for folder in folders]
    columns = max(len(folder.name) for folder in folders)

    def line(name: str, brief: RunBrief) -> str:
        return f"{name:{columns}}  {brief.status:12}  {brief.verdict:28}  {brief.duration:>12}"

    click.echo(line("RUN", RunBrief("STATUS", "VERDICT", "DURATION")))
    for folder, brief in briefs:
        click.echo(line(folder.name, brief))
