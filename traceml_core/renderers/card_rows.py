"""A section's facts in the words of the card, a row each."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from traceml_core.reporting.card_layout import Look, row
from traceml_core.reporting.section_spec import CardLine


def card_rows(facts: Sequence[CardLine], look: Look) -> list[Text]:
    """One line a fact; what does not fit ends in an ellipsis."""
    return [line for fact in facts for line in row(fact.title, fact.text, look, most=1)]
