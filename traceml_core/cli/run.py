"""`traceml run`: any training command, with a callback attached to every trainer in it and no line of it changed."""

from __future__ import annotations

import os
import signal
import typing

import click

from traceml_core.cli.command_options import as_environment, cannot_start, command_options, started_as
from traceml_core.core.attachment import VARIABLE
from traceml_core.core.settings import Mode


@click.command(context_settings={"allow_interspersed_args": False})
@command_options
@click.option("--mode", type=click.Choice(typing.get_args(Mode)), help="How it is shown while it goes on.")
def run(command: tuple[str, ...], **settings: str | None) -> None:
    """Start a command with a callback in its trainers.

    Every Lightning or Hugging Face trainer in COMMAND gets a TraceMLCallback, no line of it changed; one that has
    the callback keeps its own. This process becomes the command: exit code, signals, streams, folder and arguments are
    its own. A first word that ends in .py runs under this Python. Exit code 127: there is no such command.

    \b
    Examples: traceml run train.py --epochs 3
              traceml run --name big -- torchrun --nproc-per-node 2 train.py
    """
    words = started_as(command)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # this Python ignores them, and the command would inherit that
    try:
        os.execvpe(words[0], words, {**os.environ, **as_environment(settings), VARIABLE: "1"})
    except OSError as error:
        raise cannot_start(command[0], error) from error
