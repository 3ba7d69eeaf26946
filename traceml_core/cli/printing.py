"""How a command prints text of any letters to whatever stdout is."""

from __future__ import annotations

import os
import sys

import click


def wants_color() -> bool:
    """Colour is wanted unless the environment says otherwise."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def speaks_unicode() -> bool:
    """Stdout can show symbols beyond ASCII."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def print_text(text: str) -> None:
    """Write to stdout; letters that its encoding lacks become question marks rather than an error."""
    encoding = sys.stdout.encoding or "utf-8"
    click.echo(text.encode(encoding, "replace").decode(encoding), nl=False, color=True)


def print_line(text: str) -> None:
    """Print a line, or several, in the same way."""
    print_text(f"{text}\n")
