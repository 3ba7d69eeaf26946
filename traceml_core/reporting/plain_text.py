"""Text of the user's made safe to print: one line, no control characters, no longer than its place."""

from __future__ import annotations

import unicodedata

_ASCII = str.maketrans(
    {"–": "-", "—": "-", "…": "...", "µ": "u", "×": "x", "°": " deg ", "≤": "<=", "≥": ">=", "’": "'"}
)
_HIDDEN = ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")


def one_line(text: str, limit: int | None = None) -> str:
    """`text` on one line: control characters, bidirectional marks and runs of space become one space each.

    At most `limit` characters; what is cut ends in an ellipsis.
    """
    if limit is not None:
        text = text[: 4 * limit]
    shown = "".join(" " if unicodedata.category(character) in _HIDDEN else character for character in text)
    shown = " ".join(shown.split())
    return shown if limit is None or len(shown) <= limit else shown[: limit - 1].rstrip() + "…"


def ascii_symbols(text: str) -> str:
    """The symbols that TraceML itself uses, spelled in ASCII; letters of any script stay what they are."""
    return text.replace(" · ", ", ").translate(_ASCII)
