"""Runs of a session in this process, for the tests that look at what becomes of them."""

from __future__ import annotations

import time

import psutil

from traceml_core.core.phases import Phase
from traceml_core.runtime.session import Session
from traceml_core.telemetry.facts import RunFacts

FACTS = RunFacts(framework="manual", device="cpu")


def train(session: Session, steps: int) -> None:
    session.clock.leave(Phase.STARTUP)
    for _ in range(steps):
        session.steps.fetch()
        session.clock.enter(Phase.FORWARD)
        time.sleep(0.001)
        session.clock.leave(Phase.FORWARD)
        session.steps.micro_batch(4)
        session.steps.optimizer_step()


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def aggregator_of(session: Session) -> psutil.Process:
    return psutil.Process(session._aggregator.pid)
