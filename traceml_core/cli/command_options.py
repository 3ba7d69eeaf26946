"""What `traceml run` and `traceml watch` have in common: the command that they start, and settings as options."""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any

import click

from traceml_core.cli.failure import CommandError
from traceml_core.core.settings import PREFIX, ReportStyle

OPTIONS = (
    click.option("--name", help="Name the run. [env: TRACEML_NAME]"),
    click.option("--runs-dir", help="Where run folders are made. [env: TRACEML_RUNS_DIR]"),
    click.option("--report", type=click.Choice(typing.get_args(ReportStyle)), help="What is printed at the end."),
)


class NotFoundError(CommandError):
    """There is no such command. The exit code is the one that shells give."""

    exit_code = 127


class NotExecutableError(CommandError):
    """The command is there and cannot be executed. The exit code is the one that shells give."""

    exit_code = 126


def cannot_start(word: str, error: OSError) -> CommandError:
    """Why the command with this first word cannot be started; nothing of it has run."""
    said = f"{word} cannot be started ({error.strerror or error})"
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"{said}; check its spelling and PATH")
    return NotExecutableError(f"{said}; check that it may be executed")


def command_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command's own options, and then, from the first word that is none on, another command with its own."""
    decorated = click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)(function)
    for option in reversed(OPTIONS):
        decorated = option(decorated)
    return decorated


def started_as(command: tuple[str, ...]) -> list[str]:
    """The words to start: a script of Python's runs under this Python."""
    return [sys.executable, *command] if command[0].endswith(".py") else list(command)


def as_environment(settings: Mapping[str, str | None]) -> dict[str, str]:
    """Settings that were given, as the variables that say the same."""
    return {f"{PREFIX}{name.upper()}": value for name, value in settings.items() if value is not None}
