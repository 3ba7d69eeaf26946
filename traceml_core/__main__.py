"""`python -m traceml_core` is the `traceml` command."""

from traceml_core.cli import main

main(prog_name="traceml")
