"""`traceml export`: a run as a trace for Perfetto, or as tables for pandas."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from traceml_core.cli.failure import CommandError
from traceml_core.cli.printing import print_line
from traceml_core.cli.run_argument import log_failures_in
from traceml_core.cli.runs_dir_option import runs_dir_option

if TYPE_CHECKING:
    from traceml_core.history.reader import HistoryReader
    from traceml_core.reporting.summary import FinalSummary


@click.command()
@click.argument("run", required=False)
@click.option("--format", "form", type=click.Choice(["perfetto", "csv"]), default="perfetto", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="The file (csv: the folder) to make; must not exist.")
@runs_dir_option
def export(run: str | None, form: str, output: Path | None, runs_dir: str) -> None:
    """Export RUN as a trace for Perfetto, or as CSV tables.

    perfetto: a JSON trace-event file for https://ui.perfetto.dev, which reads it in your browser. csv: a folder with a
    file for each table. None given: the newest run.

    Example: traceml export --format csv --output tables
    """
    from traceml_core.core.run_folder import RunLookupError, find_run
    from traceml_core.history.reader import HistoryReader, HistoryUnreadableError
    from traceml_core.reporting.stored_summary import SummaryUnavailableError, load_summary

    try:
        folder = find_run(run, runs_dir)
        output = output or Path(folder.resolve().name + (".trace.json" if form == "perfetto" else "-csv"))
        if output.exists() or output.is_symlink():
            raise CommandError(f"{output} exists already, and is left as it is; name another --output")
        log_failures_in(folder)
        with HistoryReader(folder / "telemetry.sqlite") as reader:
            said = _write(form, output, reader, load_summary(folder))
    except (RunLookupError, SummaryUnavailableError, HistoryUnreadableError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{output} cannot be written ({error.strerror}); choose another --output") from error
    print_line(said)


def _write(form: str, output: Path, reader: HistoryReader, summary: FinalSummary) -> str:
    """Write the whole export or nothing; what to tell of it."""
    from traceml_core.core.atomic_files import whole_file, whole_folder
    from traceml_core.core.units import byte_size, count

    if form == "perfetto":
        from traceml_core.reporting.export.perfetto import write_trace

        with whole_file(output) as file:
            events = write_trace(file, reader, summary)
        size = byte_size(output.stat().st_size)
        return f"{output}: {count(events)} events, {size}. Open it in https://ui.perfetto.dev"
    from traceml_core.reporting.export.csv_tables import write_tables

    with whole_folder(output) as folder:
        tables = write_tables(folder, reader, summary)
    return f"{output}: {count(tables)} tables. Read one by pandas.read_csv('{output}/step_time.csv')"
