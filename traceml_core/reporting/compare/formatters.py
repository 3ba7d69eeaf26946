"""A comparison as text, markdown and HTML: verdict first, then why, then the table. JSON is the model itself."""

from __future__ import annotations

import html
from collections.abc import Callable

from rich.text import Text

from traceml_core.core.units import percent_exact
from traceml_core.reporting.card_layout import Look, indented, look_for, row, spread, to_text
from traceml_core.reporting.compare.model import Comparison, encode_comparison
from traceml_core.reporting.compare.table import HEADINGS, TableLine, side_text, table_lines

_STYLES = {"REGRESSION": "bold red", "IMPROVEMENT": "bold green", "EQUIVALENT": "bold green", "INCONCLUSIVE": "bold"}
_WIDTHS = (22, 10, 10, 9, 16)
_MOST_LINES = 6
_MARKS = {ord(sign): f"&#{ord(sign)};" for sign in "&<>\\`*_[]|~#@"}
_PARTS_NOTE = "pt: points of A's undisturbed step, of which the indented phases are the parts."


def as_text(comparison: Comparison, columns: int = 80, color: bool = False, unicode: bool | None = None) -> str:
    """The comparison for a terminal of this width; without colour also without symbols, unless told otherwise."""
    look = look_for(columns, color, unicode)
    badge = Text(f"[{comparison.verdict}]", _STYLES[comparison.verdict])
    title = Text(" TraceML compare", "bold")
    lines = [spread(title, Text(look.shown(_margin(comparison))), look), Text(), Text(" ").append_text(badge)]
    lines += [*indented(Text(look.shown(comparison.headline)), _MOST_LINES, look), Text()]
    for number, reason in enumerate(comparison.reasons):
        lines += row("" if number else "Why", reason, look, most=_MOST_LINES)
    lines += row("Next", comparison.action, look, most=_MOST_LINES)
    for number, difference in enumerate(_differences(comparison)):
        lines += row("" if number else "Differs", difference, look, most=_MOST_LINES)
    lines += [Text(), *row("A", side_text(comparison.a), look), *row("B", side_text(comparison.b), look), Text()]
    table = table_lines(comparison)
    lines.append(Text(_aligned(HEADINGS, False, look), "dim"))
    lines += [Text(_aligned(line.cells, line.part, look)) for line in table]
    if any(line.part for line in table):
        lines += [Text(), *indented(Text(_PARTS_NOTE, "dim"), 2, look)]
    return to_text(lines, look)


def as_markdown(comparison: Comparison) -> str:
    """The comparison as a comment on a pull request; names of the user's cannot become markup."""
    said = [f"### TraceML: {comparison.verdict}", "", _marked(comparison.headline), ""]
    said += [f"- {_marked(reason)}" for reason in comparison.reasons]
    said += [f"- Differs: {_marked(difference)}" for difference in _differences(comparison)]
    said += [f"- **Next:** {_marked(comparison.action)}", ""]
    said += [f"A: {_marked(side_text(comparison.a))}  ", f"B: {_marked(side_text(comparison.b))}  "]
    said += [f"{_margin(comparison).capitalize()}.", ""]
    said += [f"| {' | '.join(HEADINGS)} |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    said += [_markdown_line(line) for line in table_lines(comparison)]
    return "\n".join([*said, "", _PARTS_NOTE, ""])


def as_html(comparison: Comparison) -> str:
    """The comparison as one page without scripts or anything to load; all text is escaped."""
    escaped = html.escape
    points = [*comparison.reasons, *(f"Differs: {difference}" for difference in _differences(comparison))]
    rows = "\n".join(_html_line(line) for line in table_lines(comparison))
    return _PAGE.format(
        verdict=escaped(comparison.verdict),
        headline=escaped(comparison.headline),
        points="\n".join(f"<li>{escaped(point)}</li>" for point in points),
        action=escaped(comparison.action),
        a=escaped(side_text(comparison.a)),
        b=escaped(side_text(comparison.b)),
        margin=escaped(_margin(comparison).capitalize()),
        headings="".join(f"<th scope='col'>{escaped(heading)}</th>" for heading in HEADINGS),
        rows=rows,
        note=escaped(_PARTS_NOTE),
    )


def as_json(comparison: Comparison) -> str:
    """The model; its schema is `docs/schema/comparison.schema.json`."""
    return encode_comparison(comparison).decode()


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "text": as_text,
    "json": as_json,
    "markdown": as_markdown,
    "html": as_html,
}


def _margin(comparison: Comparison) -> str:
    return f"margin {percent_exact(comparison.margin_share)}, 95% intervals"


def _differences(comparison: Comparison) -> list[str]:
    """Each in words; those that make times incomparable say so."""
    return [
        f"{one.what}: A {one.a}, B {one.b}" + (" (not like for like)" if one.weighty else "")
        for one in comparison.differences
    ]


def _aligned(cells: tuple[str, ...], part: bool, look: Look) -> str:
    cells = tuple(look.shown(cell) for cell in cells)
    first = f"   {cells[0]}" if part else f" {cells[0]}"
    numbers = "".join(f"{cell:>{width}}" for cell, width in zip(cells[1:5], _WIDTHS[1:5], strict=True))
    return f"{first:{_WIDTHS[0]}}{numbers} {cells[5]}"


def _marked(text: str) -> str:
    """Text in which neither HTML nor markdown's own signs, mentions and links mean anything."""
    return text.translate(_MARKS).replace("://", "&#58;//")


def _markdown_line(line: TableLine) -> str:
    first = f"&emsp;{_marked(line.cells[0])}" if line.part else _marked(line.cells[0])
    return f"| {' | '.join((first, *line.cells[1:]))} |"


def _html_line(line: TableLine) -> str:
    opening = "<tr class='part'>" if line.part else "<tr>"
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in line.cells[1:])
    return f"{opening}<th scope='row'>{html.escape(line.cells[0])}</th>{cells}</tr>"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>TraceML compare: {verdict}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }}
th:first-child, th:last-child, td:last-child {{ text-align: left; }}
tbody th {{ font-weight: normal; }}
.part th {{ padding-left: 2rem; }}
</style>
</head>
<body>
<main>
<h1>{verdict}</h1>
<p><strong>{headline}</strong></p>
<ul>
{points}
</ul>
<p>Next: {action}</p>
<p>A: {a}<br>B: {b}<br>{margin}</p>
<div class="scroll">
<table>
<thead><tr>{headings}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
<p><small>{note}</small></p>
</main>
</body>
</html>
"""
