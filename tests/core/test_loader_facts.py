from __future__ import annotations

import torch
from torch.utils.data import DataLoader

from traceml_core.instrumentation.loader_facts import loader_facts
from traceml_core.telemetry.facts import LoaderFacts


def test_a_loader_tells_how_it_was_built():
    loader = DataLoader([1, 2, 3, 4], batch_size=2, pin_memory=True)
    assert loader_facts(loader) == {
        "loader": LoaderFacts(num_workers=0, persistent_workers=False, pin_memory=True),
        "batch_size": 2,
    }


def test_what_is_no_loader_tells_nothing():
    assert loader_facts(torch.zeros(2)) == {"loader": LoaderFacts()}
