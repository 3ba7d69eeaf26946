"""The JSON Schema of a comparison.

Made by `python -m traceml_core.reporting.compare.schema > docs/schema/comparison.schema.json`.
"""

from __future__ import annotations

import json
import sys

import msgspec

from traceml_core.reporting.compare.model import COMPARISON_VERSION, Comparison


def schema_text() -> str:
    """The JSON Schema (2020-12) of `traceml compare --format json`, as it is committed."""
    schema = msgspec.json.schema(Comparison)
    schema["$defs"]["Comparison"]["required"].insert(0, "schema_version")  # its default is for makers, not readers
    title = f"TraceML comparison, schema version {COMPARISON_VERSION}"
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema}
    return json.dumps(whole, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
