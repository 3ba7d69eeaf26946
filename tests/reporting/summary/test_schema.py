"""The committed schema is the one that the types give, and it refuses what is not a summary."""

from __future__ import annotations

import json

import jsonschema
import msgspec
import pytest
from summary_factory import make_issue, make_summary
from validation import SCHEMA_FILE, assert_valid_summary

from traceml_core.core.phases import Phase
from traceml_core.diagnostics.model import Risk
from traceml_core.reporting.schema import schema_text
from traceml_core.reporting.summary import decode_summary, encode_summary


def test_the_committed_schema_is_up_to_date():
    assert SCHEMA_FILE.read_text() == schema_text(), (
        "docs/schema is stale; run python -m traceml_core.reporting.schema > docs/schema/final_summary.schema.json"
    )


@pytest.mark.parametrize(
    "summary",
    [
        make_summary(),
        make_summary(status="failed", error={"type": "ValueError", "message": None, "step": None, "global_step": None}),
        make_summary(primary=make_issue(impact_share=None, risk=Risk(limit_bytes=2**34, steps_left=100))),
        make_summary(shares={Phase.FORWARD: 0.9, Phase.OPTIMIZER: None, Phase.UNATTRIBUTED: 0.1}),
    ],
)
def test_a_summary_fits_the_schema_and_reads_back(summary):
    assert_valid_summary(summary)


@pytest.mark.parametrize("version", ["2.0", "one", None, 1.0])
def test_a_summary_of_another_schema_version_is_refused(version):
    payload = json.loads(encode_summary(make_summary()))
    payload["schema_version"] = version

    with pytest.raises(msgspec.ValidationError):
        decode_summary(json.dumps(payload).encode())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload, json.loads(SCHEMA_FILE.read_text()))


def test_fields_that_a_later_minor_version_adds_are_passed_over():
    payload = json.loads(encode_summary(make_summary()))
    payload["schema_version"] = "1.7"
    payload["run"]["something_new"] = 3

    assert decode_summary(json.dumps(payload).encode()).run.name == "train-digits"
