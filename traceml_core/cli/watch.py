"""`traceml watch`: any command, its processes and the machine looked at from outside."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from traceml_core.cli.command_options import cannot_start, command_options, started_as
from traceml_core.cli.failure import CommandError


@click.command(context_settings={"allow_interspersed_args": False})
@command_options
def watch(command: tuple[str, ...], **settings: str | None) -> None:
    """Start any command and report on its processes.

    Memory and processor time of COMMAND and its children, and the machine, are looked at from outside. The command has
    this terminal: its streams, its Ctrl-C; other signals are passed on to it. Exit code: the command's, 128 + n where
    signal n ended it, 127 where there is no such command. Steps and phases are not seen from outside: `traceml run`.

    \b
    Examples: traceml watch ./preprocess.sh
              traceml watch --name etl -- python prepare.py --all
    """
    from traceml_core.cli.watched_command import WatchedCommand
    from traceml_core.core.settings import resolve_settings

    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    try:
        resolved = resolve_settings(**given, profile="watch")
    except ValueError as error:
        raise CommandError(str(error)) from error
    try:
        watched = WatchedCommand(started_as(command))
    except OSError as error:
        raise cannot_start(command[0], error) from error
    if resolved.name is None:
        resolved = msgspec.structs.replace(resolved, name=_name_of(command))
    if resolved.mode == "cli":  # the terminal is the command's: nobody here knows what it draws there
        resolved = msgspec.structs.replace(resolved, mode="summary")
    sys.exit(watched.record(resolved))


def _name_of(command: tuple[str, ...]) -> str:
    """The script's stem, as a callback would name the run; without a script the program's."""
    return Path(next((word for word in command if word.endswith(".py")), command[0])).stem
