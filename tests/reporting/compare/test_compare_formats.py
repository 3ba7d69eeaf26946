"""A comparison as text, JSON, markdown and HTML: one model, the same numbers, nothing of the user's as markup."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import jsonschema
import pytest
from compare_factory import make_compared, slower
from hypothesis import given
from hypothesis import strategies as st

from traceml_core.core.phases import Phase
from traceml_core.reporting.compare.core import compare
from traceml_core.reporting.compare.formatters import FORMATS, as_html, as_json, as_markdown, as_text
from traceml_core.reporting.compare.schema import schema_text
from traceml_core.reporting.compare.table import table_lines

SCHEMA_FILE = Path(__file__).parents[3] / "docs" / "schema" / "comparison.schema.json"
HOSTILE = "<script>alert(1)</script>|`x`[y](http://z) @team #1 \x1b[31m"


@pytest.fixture(scope="module")
def told():
    a = make_compared(series={"seed": 1}, peak_bytes=1e9)
    b = make_compared(slower(Phase.FORWARD, 2.0), series={"seed": 2}, peak_bytes=1.1e9, batch_size=64, name=HOSTILE)
    return compare([a], [b])


def shown_in(form: str, text: str) -> str:
    """What a reader sees of it, in one line."""
    if form == "html":
        text = html.unescape(re.sub(r"<[^>]+>", " ", text))
    if form == "markdown":
        text = html.unescape(text.replace("|", " "))
    return " ".join(text.split())


def test_text_markdown_and_html_show_the_same_verdict_sentences_and_cells(told):
    for form in ("text", "markdown", "html"):
        shown = shown_in(form, FORMATS[form](told))
        assert told.verdict in shown
        for sentence in (told.headline, told.action, *told.reasons):
            assert sentence in shown
        for line in table_lines(told):
            cells = [cell.replace("–", "-").replace("µ", "u") for cell in line.cells if cell]
            assert " ".join(cells) in shown.replace("–", "-").replace("µ", "u")


def test_json_is_the_model_and_fits_the_committed_schema(told):
    payload = json.loads(as_json(told))

    jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(payload)
    assert payload["verdict"] == told.verdict
    assert [metric["change"] and metric["change"]["share"] for metric in payload["metrics"]] == [
        metric.change and metric.change.share for metric in told.metrics
    ]


def test_the_committed_schema_of_a_comparison_is_up_to_date():
    assert SCHEMA_FILE.read_text() == schema_text(), (
        "docs/schema is stale; run python -m traceml_core.reporting.compare.schema > docs/schema/comparison.schema.json"
    )


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_text_says_the_verdict_first_then_why_then_the_table(told, columns):
    lines = as_text(told, columns=columns).splitlines()
    first = [index for index, line in enumerate(lines) if "[REGRESSION]" in line][0]
    why = [index for index, line in enumerate(lines) if line.startswith(" Why")][0]
    table = [index for index, line in enumerate(lines) if line.startswith(" undisturbed step")][0]

    assert first < why < table


def test_text_fits_eighty_columns_in_ascii_without_a_terminal(told):
    text = as_text(told)

    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()


def test_a_name_cannot_become_markup(told):
    page, comment = as_html(told), as_markdown(told)

    assert "<script" not in page
    assert "&lt;script&gt;" in page
    for sign in ("<script", "[y](", "`x`", "@team", "http://", " #1"):
        assert sign not in comment
    assert "\x1b" not in as_text(told) + page + comment + as_json(told)


def test_the_page_loads_nothing_and_runs_nothing(told):
    page = as_html(told)

    assert not re.search(r"(src|href)=|url\(|@import|javascript:| on\w+=", page)
    assert page.startswith("<!doctype html>")


@given(st.text(max_size=80))
def test_a_table_of_markdown_keeps_its_columns_whatever_a_run_is_called(name):
    comparison = compare([make_compared(series={"steps": 8}, name=name)], [make_compared(series={"steps": 8})])
    lines = [line for line in as_markdown(comparison).splitlines() if line.startswith("|")]

    assert {line.count("|") for line in lines} == {7}
    assert len(lines) == 2 + len(table_lines(comparison))
