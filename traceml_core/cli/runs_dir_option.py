"""The option that says where runs are looked for; it follows the callback's own setting."""

from __future__ import annotations

import click

runs_dir_option = click.option(
    "--runs-dir",
    envvar="TRACEML_RUNS_DIR",
    default="traceml_runs",
    show_default=True,
    help="Where runs are looked for.",
)
