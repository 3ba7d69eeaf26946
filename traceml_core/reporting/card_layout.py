"""How the card is laid out: rows of a title and a text, bars, and what both look like without a terminal."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console
from rich.text import Text

from traceml_core.reporting.plain_text import ascii_symbols, one_line

WIDEST = 100
NARROWEST = 40
TITLE_COLUMNS = 9
_EIGHTHS = " ▏▎▍▌▋▊▉"


class Look(msgspec.Struct, frozen=True):
    """How the card may look: its width in terminal columns, and whether colour and symbols are to be had."""

    columns: int
    color: bool
    symbols: bool

    def shown(self, text: str, limit: int | None = None) -> str:
        """`text` as this card can show it: on one line, in ASCII symbols where there are no others."""
        text = one_line(text, limit)
        return text if self.symbols else ascii_symbols(text)


def look_for(columns: int, color: bool, symbols: bool | None) -> Look:
    """The look for a terminal of this width; symbols are used where colour is, unless told otherwise."""
    return Look(max(NARROWEST, min(columns, WIDEST)), color, color if symbols is None else symbols)


def to_text(lines: list[Text], look: Look) -> str:
    """The lines as one string that ends in a newline; without colour no line has trailing space."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=10_000,
        force_terminal=look.color,
        color_system="standard" if look.color else None,
        force_jupyter=False,
        legacy_windows=False,
        no_color=not look.color,
        highlight=False,
        markup=False,
        emoji=False,
        _environ={},
    )
    console.print(Text("\n").join(lines), soft_wrap=True)
    text = out.getvalue()
    return text if look.color else "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def row(title: str, text: Text | str, look: Look, *, most: int = 2, title_style: str = "dim") -> list[Text]:
    """A title and its text, wrapped below itself to at most `most` lines; what is cut ends in an ellipsis."""
    body = Text(look.shown(text)) if isinstance(text, str) else text
    wrapped = wrap(body, look.columns - TITLE_COLUMNS - 1, most, look)
    lines = []
    for number, part in enumerate(wrapped):
        line = Text(" ")
        line.append(f"{title if number == 0 else '':{TITLE_COLUMNS}}", title_style)
        line.append_text(part)
        lines.append(line)
    return lines


def indented(text: Text, most: int, look: Look) -> list[Text]:
    """A paragraph one column in, of at most `most` lines."""
    return [Text(" ").append_text(part) for part in wrap(text, look.columns - 2, most, look)]


def wrap(text: Text, columns: int, most: int, look: Look) -> list[Text]:
    """`text` in lines of at most `columns`; at most `most` of them, the last then ending in an ellipsis."""
    lines = list(text.wrap(Console(width=columns, file=io.StringIO(), _environ={}), columns))
    if len(lines) <= most:
        return lines
    kept = lines[:most]
    ellipsis = look.shown("…")
    kept[-1].truncate(columns - len(ellipsis))
    kept[-1].rstrip()
    kept[-1].append(ellipsis)
    return kept


def spread(left: Text, right: Text, look: Look) -> Text:
    """`left` and `right` at the two ends of one line; `left` is cut where both do not fit."""
    room = look.columns - right.cell_len - 1
    if left.cell_len > room:
        left.truncate(max(0, room - 3))
        left.append(look.shown("…"))
    line = Text().append_text(left)
    line.append(" " * max(1, look.columns - left.cell_len - right.cell_len))
    line.append_text(right)
    return line


def bar(share: float, columns: int, look: Look) -> str:
    """A bar of `share` of `columns`; a share that is not nothing is never shown as nothing."""
    share = min(max(share, 0.0), 1.0)
    if not look.symbols:
        cells = round(share * columns)
        return "#" * max(cells, 1 if share > 0 else 0)
    eighths = round(share * columns * 8)
    whole, rest = divmod(max(eighths, 1 if share > 0 else 0), 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")
