"""What a chart on a page is: plotly's figure as plain JSON, and the same numbers as a table.

A colour is named by the style sheet's variable, such as `--forward`; `charts.js` puts in
what that is in the theme at hand.
"""

from __future__ import annotations

from typing import Any

import msgspec

from traceml_core.reporting.html.table import Table


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One chart: its key on the page, what it is called and shows, plotly's traces and layout, and the same numbers."""

    key: str
    title: str
    description: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    table: Table


def plain(text: str) -> str:
    """A text that plotly takes as it is: it reads markup in texts."""
    return text.replace("<", "‹").replace("&", "+")


def marked_at(x: float, text: str, anchor: str) -> dict[str, Any]:
    """A word above the chart, at a place of its x-axis."""
    return {
        "xref": "x",
        "yref": "paper",
        "x": x,
        "y": 1,
        "text": text,
        "showarrow": False,
        "xanchor": anchor,
        "yanchor": "bottom",
        "font": {"size": 12, "color": "--muted"},
    }
