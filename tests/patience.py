"""Waiting at the end of a run for its report, however long a crowded machine takes to make it.

A run that is not given its report within a few seconds says so and goes on without it; tests that ask what a report
says, or what is said, need it. That training never waits longer than it may is asked with the product's own limits, in
`tests/runtime/test_session_faults.py`, `tests/faults` and `tox -e chaos`.
"""

from __future__ import annotations

from collections.abc import Callable

from traceml_core.runtime import live_session, sender

PATIENCE_S = 60.0
# After how long a person is told that the report takes longer than usual, and that the aggregator does not answer; how
# long the report is waited for; how long all of the end may take.
LIMITS = (
    (live_session, "REPORT_WAIT_S", PATIENCE_S),
    (live_session, "REPORT_LIMIT_S", PATIENCE_S),
    (live_session, "CLOSE_LIMIT_S", PATIENCE_S + 5.0),
    (sender, "ANSWER_LIMIT_S", PATIENCE_S),
)
OF_THE_PRODUCT = tuple((module, name, getattr(module, name)) for module, name, _ in LIMITS)


def wait_patiently(put: Callable[[object, str, float], None] = setattr) -> None:
    """Put the patient limits in place; `put` is a monkeypatch's where they are to go again."""
    for limit in LIMITS:
        put(*limit)


def wait_as_users_do(put: Callable[[object, str, float], None] = setattr) -> None:
    """Put the product's own limits back."""
    for limit in OF_THE_PRODUCT:
        put(*limit)
