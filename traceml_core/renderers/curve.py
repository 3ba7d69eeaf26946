"""A row of numbers as a curve of one line."""

from __future__ import annotations

from collections.abc import Sequence

from traceml_core.reporting.card_layout import Look

_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN = "_.-~=+*#"


def curve(values: Sequence[float], look: Look) -> str:
    """A character a value, from the lowest to the highest of them; values that are all alike lie low."""
    levels = _BLOCKS if look.symbols else _PLAIN
    lowest, highest = min(values), max(values)
    if highest <= lowest:
        return levels[0] * len(values)
    return "".join(levels[round((value - lowest) / (highest - lowest) * (len(levels) - 1))] for value in values)
