"""A run of this process, opened as an adapter opens it."""

from __future__ import annotations

import pytest
from session_runs import FACTS

from traceml_core.core.settings import resolve_settings
from traceml_core.runtime import console
from traceml_core.runtime.session import Session, open_session
from traceml_core.telemetry.facts import RunFacts


@pytest.fixture
def open_run(tmp_path, monkeypatch, patient):
    """Opens sessions in `tmp_path/runs`, as a process's first; closes them in the end. They wait for their reports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_RUNS", [])
    opened: list[Session] = []

    def opener(facts: RunFacts = FACTS, identity=None, store=None, **settings):
        resolved = resolve_settings({}, **{"runs_dir": "runs", "name": "test", **settings})
        opened.append(open_session(resolved, facts, identity, store=store))
        return opened[-1]

    yield opener
    for session in reversed(opened):
        session.close()
