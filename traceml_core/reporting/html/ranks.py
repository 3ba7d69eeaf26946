"""Ranks beside each other: a table of two, a heat map from three on."""

from __future__ import annotations

import msgspec

from traceml_core.core.phases import STEP_PHASES, Phase
from traceml_core.core.units import milliseconds
from traceml_core.reporting.card import phase_label
from traceml_core.reporting.html.axes import quiet_axis
from traceml_core.reporting.html.figure import Figure
from traceml_core.reporting.html.table import Table, rank_table
from traceml_core.reporting.summary import Section
from traceml_core.statistics.ranked import median_rank

FEWEST_FOR_A_MAP = 3
MOST_WITH_TEXT = 12
ROW_PX = 34
AROUND_ROWS_PX = 110


class RanksView(msgspec.Struct, frozen=True):
    """The figure from three ranks on; the table always."""

    figure: Figure | None
    table: Table


def ranks_view(section: Section | None) -> RanksView | None:
    """Ranks of a job by phase; null where it has one only, or their steps were not measured."""
    if section is None or len(section.ranks) < 2:
        return None
    phases = [
        phase.key
        for phase in (*STEP_PHASES, Phase.UNATTRIBUTED)
        if any(one.metrics.get(f"{phase.key}_ms") for one in section.ranks)
    ]
    names, labels = [f"{key}_ms" for key in phases], [phase_label(key) for key in phases]
    table = rank_table("Mean time of a step, by rank and phase", section, names, labels)
    has_map = len(section.ranks) >= FEWEST_FOR_A_MAP and bool(phases)
    return RanksView(_heat_map(section, phases, table) if has_map else None, table)


def _heat_map(section: Section, phases: list[str], table: Table) -> Figure:
    means = [[one.metrics.get(f"{key}_ms") for one in section.ranks] for key in phases]
    apart = [_from_median(row) for row in means]
    most = max((abs(value) for row in apart for value in row if value is not None), default=0.0) or 1.0
    texts = [[milliseconds(value) for value in row] for row in means]
    return Figure(
        key="ranks",
        title="Ranks, by phase",
        description="Each rank's mean time in each phase of a step. Colour: how far it lies from the median rank.",
        data=[
            {
                "type": "heatmap",
                "x": [one.rank for one in section.ranks],
                "y": [phase_label(key) for key in phases],
                "z": apart,
                "zmin": -most,
                "zmax": most,
                "text": texts,
                "texttemplate": "%{text}" if len(section.ranks) <= MOST_WITH_TEXT else "",
                "textfont": {"color": "--ink", "size": 12},
                "hovertemplate": "rank %{x}, %{y}: %{text}<extra></extra>",
                "colorscale": [[0, "--less"], [0.5, "--same"], [1, "--more"]],
                "xgap": 2 if len(section.ranks) <= MOST_WITH_TEXT else 0,
                "ygap": 2,
                "colorbar": {
                    "tickvals": [-most, 0, most],
                    "ticktext": [f"−{milliseconds(most)}", "median", f"+{milliseconds(most)}"],
                    "thickness": 10,
                    "outlinewidth": 0,
                    "tickfont": {"color": "--muted"},
                },
            }
        ],
        layout={
            "height": ROW_PX * len(phases) + AROUND_ROWS_PX,
            "xaxis": quiet_axis("rank") | {"showgrid": False, **_every_rank(len(section.ranks))},
            "yaxis": quiet_axis("") | {"autorange": "reversed", "showgrid": False, "color": "--ink"},
        },
        table=table,
    )


def _from_median(means: list[float | None]) -> list[float | None]:
    known = [value for value in means if value is not None]
    median = median_rank(known) if known else 0.0
    return [None if value is None else value - median for value in means]


def _every_rank(ranks: int) -> dict[str, object]:
    return {"dtick": 1} if ranks <= MOST_WITH_TEXT else {}
