"""The `traceml` command. Each command lives in a file of its own and imports what it needs when it runs."""

from __future__ import annotations

import click

from traceml_core import __version__
from traceml_core.cli.clean import clean
from traceml_core.cli.command_group import CommandGroup
from traceml_core.cli.compare import compare
from traceml_core.cli.dashboard import dashboard
from traceml_core.cli.demo import demo
from traceml_core.cli.export import export
from traceml_core.cli.list_runs import list_runs
from traceml_core.cli.live import live
from traceml_core.cli.report import report
from traceml_core.cli.run import run
from traceml_core.cli.watch import watch

LOOK, GATE, START, KEEP = "Look at a run", "Compare and gate", "Start", "Keep house"

# Every command under its heading, in the order of `traceml --help`.
COMMANDS: tuple[tuple[str, click.Command], ...] = (
    (LOOK, report),
    (LOOK, live),
    (LOOK, dashboard),
    (LOOK, list_runs),
    (LOOK, export),
    (GATE, compare),
    (START, run),
    (START, watch),
    (START, demo),
    (KEEP, clean),
)


@click.group("traceml", cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="traceml")
def main() -> None:
    """Where did the time and the memory of a training run go, and what should be done next?"""


for heading, command in COMMANDS:
    main.add_under(heading, command)
