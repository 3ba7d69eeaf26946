"""The page of settings says what the struct says."""

from __future__ import annotations

from pathlib import Path

from traceml_core.core.settings import settings_reference


def test_the_page_of_settings_is_up_to_date():
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text() == settings_reference(), "stale: python -m traceml_core.core.settings > docs/settings.md"
