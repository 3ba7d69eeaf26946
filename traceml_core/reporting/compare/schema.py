"""The JSON Schema of a comparison.

Made by `python -m traceml_core.reporting.compare.schema > docs/schema/comparison.schema.json`.
"""

from __future__ import annotations

import json
import sys

from traceml_core.reporting.compare.model import COMPARISON_VERSION, Comparison
from traceml_core.reporting.schema import json_schema_of


def schema_text() -> str:
    """The JSON Schema (2020-12) of `traceml compare --format json`, as it is committed."""
    schema = json_schema_of(Comparison, f"TraceML comparison, schema version {COMPARISON_VERSION}")
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
