"""`traceml report`: print the report of a run, built anew where the run is still going on or was killed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from traceml_core.cli.failure import CommandError
from traceml_core.cli.printing import print_line, print_text, speaks_unicode, wants_color
from traceml_core.cli.run_argument import load_run
from traceml_core.cli.runs_dir_option import runs_dir_option
from traceml_core.core.presence import is_folder, is_there

if TYPE_CHECKING:
    from traceml_core.reporting.summary import FinalSummary


@click.command()
@click.argument("run", required=False)
@click.option("--format", "form", type=click.Choice(["text", "json", "html"]), default="text", show_default=True)
@click.option("--details", is_flag=True, help="Add each section's numbers as a table.")
@click.option("--rebuild", is_flag=True, help="Build the report from the stored rows, whatever is there.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to a file instead; html: not into the run folder.",
)
@runs_dir_option
def report(run: str | None, form: str, details: bool, rebuild: bool, output: Path | None, runs_dir: str) -> None:
    """Print the report of RUN, by default the newest.

    RUN is a run folder, or its final_summary.json. A run in progress is shown as it stands. For one that was killed
    the report is built and its files are written.

    With --format html it is a page that opens in any browser, without a network, and is written to a file.

    Example: traceml report --details

    Example: traceml report --format html --output report.html
    """
    summary, folder = load_run(run, runs_dir, rebuild)
    if form == "html":
        print_line(f"{_write_page(summary, folder, output)} is written; open it in a browser.")
        return
    if form == "json":
        from traceml_core.reporting.summary import encode_summary

        text = encode_summary(summary).decode()
    else:
        text = _text(summary, folder, details, plain=output is not None)
    if output is None:
        print_text(text)
    else:
        _write(output, text)


def _write(output: Path, text: str) -> None:
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{output} cannot be written ({error.strerror}); choose another --output") from error


def _write_page(summary: FinalSummary, source: Path, output: Path | None) -> Path:
    """Write the report as a page; where no file is named, beside the summary that it shows."""
    from traceml_core.reporting.html.page import PageUnavailableError, is_ours, render_report

    stem = "live_summary" if summary.run.status == "running" else "final_summary"
    beside = source / f"{stem}.html" if is_folder(source) else source.with_suffix(".html")
    if output is None and is_there(beside) and not is_ours(beside):
        raise CommandError(f"{beside} is not a page of TraceML and is left as it is; name another file by --output")
    try:
        _write(output or beside, render_report(summary))
    except PageUnavailableError as error:
        raise CommandError(str(error)) from error
    return output or beside


def print_report(summary: FinalSummary, folder: Path) -> None:
    """Print the card, as `traceml report` does."""
    print_text(_text(summary, folder, details=False, plain=False))


def _text(summary: FinalSummary, folder: Path, details: bool, plain: bool) -> str:
    from traceml_core.reporting.card import render_card
    from traceml_core.reporting.tables import render_tables

    terminal = sys.stdout.isatty() and not plain
    text = render_card(
        summary,
        columns=shutil.get_terminal_size().columns if terminal else 80,
        color=terminal and wants_color(),
        unicode=terminal and speaks_unicode(),
        folder=str(folder),
    )
    return f"{text}\n{render_tables(summary)}" if details else text
