"""How a command says that it cannot do what it was asked: one line with a remedy, and exit code 2."""

from __future__ import annotations

import click

from traceml_core.reporting.plain_text import one_line


class CommandError(click.ClickException):
    """The command stops here. The message says what is true, then what to do."""

    exit_code = 2

    def show(self, file: object = None) -> None:
        """Print the message as one line on stderr, whatever a damaged file or an argument brought into it."""
        click.echo(f"traceml: {one_line(self.format_message())}", err=True)
