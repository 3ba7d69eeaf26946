"""`traceml run`: any training command, with a callback attached to every trainer in it and no line of it changed."""

from __future__ import annotations

import os
import signal

import click

from traceml_core.cli.command_options import as_environment, cannot_start, command_options, started_as
from traceml_core.core.attachment import VARIABLE


@click.command(context_settings={"allow_interspersed_args": False})
@command_options
def run(command: tuple[str, ...], **settings: str | None) -> None:
    """Start COMMAND with a TraceMLCallback in every Lightning or Hugging Face trainer of it.

    This process becomes the command: exit code, signals, streams, folder and arguments are its own. A first word that
    ends in .py runs under this Python. A trainer that has the callback keeps its own. Exit code 127: no such command.

    Examples: traceml run train.py --epochs 3, traceml run --name big -- torchrun --nproc-per-node 2 train.py
    """
    words = started_as(command)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # this Python ignores them, and the command would inherit that
    try:
        os.execvpe(words[0], words, {**os.environ, **as_environment(settings), VARIABLE: "1"})
    except OSError as error:
        raise cannot_start(command[0], error) from error
