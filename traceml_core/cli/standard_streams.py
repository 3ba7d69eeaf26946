"""Standard streams that may be missing: a command may be started with any of them closed."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def stand_in_for_missing() -> None:
    """Let commands read nothing, and print to nowhere, where a stream is closed.

    The stand-in takes the closed descriptor, which no file of ours then gets by chance. Programs that are started do
    not inherit it: for them the stream is as closed as it was.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the process ends
