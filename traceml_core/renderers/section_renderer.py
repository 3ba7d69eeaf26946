"""What a renderer is: a section of the summary, drawn for the live view."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from rich.text import Text

from traceml_core.reporting.card_layout import Look
from traceml_core.reporting.summary import RunSummary, Section


class SectionView(msgspec.Struct, frozen=True):
    """One section: its `lines` come first; each block of `more` is shown, whole, where there is still room for it."""

    lines: list[Text]
    more: list[list[Text]] = []


class SectionRenderer(msgspec.Struct, frozen=True, kw_only=True):
    """One section's renderer, registered in `renderers/registry.py`.

    `render` is given the section, what ran, and how it may look. It draws what they hold and computes nothing. It may
    raise: the other sections are shown, and errors.log says why.
    """

    name: str
    render: Callable[[Section, RunSummary, Look], SectionView]
