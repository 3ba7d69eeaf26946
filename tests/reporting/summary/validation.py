"""Checks a summary against the schema that is committed, as a consumer in another language would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

from traceml_core.reporting.summary import FinalSummary, decode_summary, encode_summary

SCHEMA_FILE = Path(__file__).parents[3] / "docs" / "schema" / "final_summary.schema.json"


def assert_valid_summary(summary: FinalSummary | Path) -> dict[str, Any]:
    """Fail unless the summary, or the file that holds one, fits the committed schema and reads back; its JSON."""
    data = summary.read_bytes() if isinstance(summary, Path) else encode_summary(summary)
    payload: dict[str, Any] = json.loads(data)
    jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(payload)
    assert encode_summary(decode_summary(data)) == data
    return payload
