"""The `traceml` command. Each command lives in a file of its own and imports what it needs when it runs."""

from __future__ import annotations

import click

from traceml_core import __version__
from traceml_core.cli.compare import compare
from traceml_core.cli.demo import demo
from traceml_core.cli.list_runs import list_runs
from traceml_core.cli.report import report


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="traceml")
def main() -> None:
    """Where did the time and the memory of a training run go, and what should be done next?

    Training needs no command: put a TraceMLCallback into the trainer and start the script as always.
    """


for command in (demo, report, compare, list_runs):
    main.add_command(command)
