"""Axes of the charts: quiet ones, and those of sizes, whose ticks are round in binary units."""

from __future__ import annotations

from typing import Any

from traceml_core.core.units import byte_size

MOST_TICKS = 6


def quiet_axis(title: str) -> dict[str, Any]:
    """An axis that stays in the background."""
    return {
        "title": {"text": title, "standoff": 8},
        "color": "--muted",
        "gridcolor": "--line",
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": "rgba(0,0,0,0)",
        "automargin": True,
    }


def byte_axis(largest: float) -> dict[str, Any]:
    """An axis from 0 to `largest` bytes."""
    step = 1.0
    while largest / step > MOST_TICKS:
        step *= 2
    ticks = [step * place for place in range(int(largest / step) + 2)]
    return quiet_axis("") | {
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [byte_size(tick) for tick in ticks],
        "range": [0, largest * 1.08 or 1],
    }
