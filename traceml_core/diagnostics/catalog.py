"""The reference of all diagnoses: `docs/diagnoses.md`, made of the rules' own docstrings.

Written anew by `python -m traceml_core.diagnostics.catalog > docs/diagnoses.md`.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from traceml_core.diagnostics.judgement import Rule
from traceml_core.diagnostics.process.rules import RULES as PROCESS_RULES
from traceml_core.diagnostics.step_memory.rules import RULES as STEP_MEMORY_RULES
from traceml_core.diagnostics.step_time.rules import RULES as STEP_TIME_RULES
from traceml_core.diagnostics.step_time.rules import TOO_FEW_STEPS
from traceml_core.diagnostics.system.rules import RULES as SYSTEM_RULES

RULES_BY_SECTION: dict[str, tuple[Rule[Any, Any], ...]] = {
    "step_time": (*STEP_TIME_RULES, *TOO_FEW_STEPS),
    "step_memory": STEP_MEMORY_RULES,
    "process": PROCESS_RULES,
    "system": SYSTEM_RULES,
}

_INTRODUCTION = """\
# Diagnoses

Every finding has a kind, a severity (info, warning, critical), the share of the run's wall time that fixing it would
give back at most (`impact_share`, null where a finding only describes), and the numbers it rests on (`evidence`).
First comes what ended a failed run, then the more severe, then what has more impact; the first of all is the primary
diagnosis. Within a section the kinds below stand in their order of priority. Start-up, warm-up steps and what
happened only once or twice are no basis for a warning.

This page is generated from the rules; the thresholds are in each section's `policy.py`.
"""

_STATES = """\
## Every section

### NORMAL

All rules looked, and none found anything.

### INCOMPLETE_DATA

None of the rules found anything, but some could not judge, because signals that they need were not measured with this
framework and strategy. The summary names them. `docs/compatibility.md` says what can be measured where.

### NO_DATA

Nothing of this section was measured, or it could not be built; `errors.log` in the run folder says why.
"""


def diagnoses_reference() -> str:
    """The page, as Markdown: every kind, by section, in order of priority."""
    parts = [_INTRODUCTION]
    for section, rules in RULES_BY_SECTION.items():
        parts.append(f"## {section}\n")
        parts += [_page(rule) for rule in rules]
    return "\n".join([*parts, _STATES])


def _page(rule: Rule[Any, Any]) -> str:
    text = inspect.cleandoc(type(rule).__doc__ or "")
    for lead in ("What is true:", "Why it matters:", "What to do:"):
        text = text.replace(lead, f"**{lead}**")
    instead = f"\n\nReported instead of {' and '.join(rule.supersedes)}." if rule.supersedes else ""
    return f"### {rule.kind}\n\n{text}{instead}\n"


if __name__ == "__main__":
    sys.stdout.write(diagnoses_reference())
