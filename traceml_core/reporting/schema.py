"""The JSON Schema of the summary: `python -m traceml_core.reporting.schema > docs/schema/final_summary.schema.json`."""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any

import msgspec

from traceml_core.reporting.summary import SCHEMA_VERSION, FinalSummary


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `final_summary.json` and `live_summary.json`."""
    return json_schema_of(FinalSummary, f"TraceML final summary, schema version {SCHEMA_VERSION}")


def json_schema_of(model: type[msgspec.Struct], title: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a model with a `schema_version`, alike from every release of msgspec."""
    schema = _alike(msgspec.json.schema(model))
    schema["$defs"][model.__name__]["required"].insert(0, "schema_version")  # its default is for makers, not readers
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema}


def _alike(part: Any) -> Any:
    """Descriptions without their indentation, and null as the last of several types."""
    if isinstance(part, list):
        return [_alike(one) for one in part]
    if not isinstance(part, dict):
        return part
    settled = {key: _alike(value) for key, value in part.items()}
    if isinstance(settled.get("description"), str):
        settled["description"] = inspect.cleandoc(settled["description"])
    if isinstance(settled.get("anyOf"), list):
        settled["anyOf"].sort(key=lambda one: one.get("type") == "null")
    return settled


def schema_text() -> str:
    """The schema as it is committed."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
