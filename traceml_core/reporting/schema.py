"""The JSON Schema of the summary: `python -m traceml_core.reporting.schema > docs/schema/final_summary.schema.json`."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from traceml_core.reporting.summary import SCHEMA_VERSION, FinalSummary


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `final_summary.json` and `live_summary.json`."""
    schema = msgspec.json.schema(FinalSummary)
    schema["$defs"]["FinalSummary"]["required"].insert(0, "schema_version")  # its default is for makers, not readers
    title = f"TraceML final summary, schema version {SCHEMA_VERSION}"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema}


def schema_text() -> str:
    """The schema as it is committed."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
