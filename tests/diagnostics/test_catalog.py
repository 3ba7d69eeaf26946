from __future__ import annotations

from pathlib import Path

from traceml_core.diagnostics.catalog import RULES_BY_SECTION, diagnoses_reference

KINDS = {
    "step_time": "INPUT_BOUND H2D_BOUND COMPUTE_BOUND LAUNCH_BOUND UNATTRIBUTED_HEAVY CALLBACK_HEAVY LOGGING_HEAVY "
    "CHECKPOINT_HEAVY VALIDATION_HEAVY LOADER_RESTART WARMUP INPUT_STRAGGLER H2D_STRAGGLER COMPUTE_STRAGGLER STRAGGLER "
    "COMMUNICATION_BOUND",
    "step_memory": "GPU_MEMORY_PRESSURE GPU_MEMORY_IMBALANCE GPU_MEMORY_CREEP ALLOCATOR_RETRIES NO_GPU",
    "process": "HOST_MEMORY_CREEP HIGH_PROCESS_MEMORY HIGH_PROCESS_CPU GPU_MEMORY_RESERVED_OVERHANG",
    "system": "HIGH_HOST_MEMORY HIGH_HOST_CPU HIGH_GPU_MEMORY HIGH_GPU_TEMPERATURE HIGH_GPU_POWER GPU_THROTTLED "
    "LOW_GPU_UTILIZATION",
}


def test_the_page_of_diagnoses_is_up_to_date():
    page = Path(__file__).parents[2] / "docs" / "diagnoses.md"
    remedy = "stale: python -m traceml_core.diagnostics.catalog > docs/diagnoses.md"
    assert page.read_text() == diagnoses_reference(), remedy


def test_every_kind_of_the_contract_has_a_rule():
    assert {name: {rule.kind for rule in rules} for name, rules in RULES_BY_SECTION.items()} == {
        name: set(kinds.split()) for name, kinds in KINDS.items()
    }


def test_every_rule_is_a_page_and_supersedes_kinds_of_its_own_section():
    for rules in RULES_BY_SECTION.values():
        kinds = {rule.kind for rule in rules}
        for rule in rules:
            assert (type(rule).__doc__ or "").strip()
            assert set(rule.supersedes) <= kinds - {rule.kind}
