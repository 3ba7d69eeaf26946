"""Which of Lightning's two packages this process uses; both are never imported."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

NAMES = ("lightning.pytorch", "pytorch_lightning")


def lightning_module() -> ModuleType:
    """`lightning.pytorch` or `pytorch_lightning`: the one that is loaded already, else the one that is installed.

    Raises:
        ImportError: neither is installed; the message says how to install one.
    """
    for name in NAMES:
        if name in sys.modules:
            return sys.modules[name]
    for name in NAMES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise
    raise ImportError("TraceMLCallback needs Lightning: pip install 'traceml-callbacks[lightning]'")
