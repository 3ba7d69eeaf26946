"""The command line as a whole: commands under headings, errors in one line, pipes that may close early."""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from traceml_core.cli.failure import CommandError
from traceml_core.cli.standard_streams import stand_in_for_missing
from traceml_core.reporting.plain_text import one_line

# What a shell reports of a program that SIGPIPE ended: `compare` means something else by 1 and 2.
PIPE_CLOSED_EXIT_CODE = 141


class CommandGroup(click.Group):
    """A group whose help is a table of contents, and whose errors, click's own too, are one line with a remedy."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        """Begin without commands."""
        super().__init__(*args, **attributes)
        self._headings: dict[str, list[str]] = {}

    def add_under(self, heading: str, command: click.Command) -> None:
        """Add a command; headings, and the commands under each, are shown in the order in which they come."""
        self.add_command(command)
        self._headings.setdefault(heading, []).append(command.name or "")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Nothing asked for is the help asked for, in every release of click."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()
        return super().parse_args(ctx, args)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """The context of the whole command line."""
        stand_in_for_missing()
        with _output_that_may_end(), _one_line_errors("traceml"):
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        with _output_that_may_end(), _one_line_errors(ctx.command_path, ctx):
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; where there is none of that name, the one that may have been meant is named."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, self.commands, n=1)
            remedy = f"did you mean `{ctx.command_path} {near[0]}`?" if near else f"`{ctx.command_path}` lists them all"
            raise CommandError(f"there is no command {one_line(name, 60)!r}; {remedy}")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their headings, then how to learn more, in few lines: all fits on one screen."""
        columns = max((len(name) for name in self.commands), default=0)
        for heading, names in self._headings.items():
            with formatter.section(heading):
                room = formatter.width - 6 - columns
                formatter.write_dl(
                    [(f"{name:{columns}}", self.commands[name].get_short_help_str(room)) for name in names]
                )
        formatter.write_paragraph()
        formatter.write_text(f"`{ctx.command_path} COMMAND --help` has options and examples; `--version` is told too.")


@contextmanager
def _one_line_errors(path: str, ctx: click.Context | None = None) -> Iterator[None]:
    """Errors of click's own become ours; `path` is the command in question, or the group whose context this is."""
    try:
        yield
    except CommandError:
        raise
    except click.UsageError as error:
        said = one_line(error.format_message()).rstrip(".")
        said = f"{said[:1].lower()}{said[1:]}"
        if ctx is not None and ctx.invoked_subcommand:
            path = f"{path} {ctx.invoked_subcommand}"
        raise CommandError(said if said.endswith("?") else f"{said}; see `{path} --help`") from error
    except click.ClickException as error:
        raise CommandError(error.format_message()) from error


@contextmanager
def _output_that_may_end() -> Iterator[None]:
    """Who reads may have read enough (`traceml list | head -1`): the command then ends without a word.

    Where the disk is full it says so.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        # What is still buffered has nowhere to go, and the interpreter would complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.ENOSPC:
            raise CommandError(f"the output cannot be written ({error.strerror}); free some room first") from error
        raise click.exceptions.Exit(PIPE_CLOSED_EXIT_CODE) from None
