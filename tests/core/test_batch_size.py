"""Samples and tokens are read off a batch's shapes, whatever the batch is."""

from __future__ import annotations

from collections import UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from traceml_core.instrumentation.batch_size import BatchSizes, size_of
from traceml_core.loggers.error_log import FAILURES, close_error_log


class BatchEncoding(UserDict):
    """As transformers has it: a mapping that also gives its items as attributes."""

    def __getattr__(self, name):
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass
class Unknown:
    pixels: torch.Tensor


Pair = namedtuple("Pair", "x y")
IMAGES = torch.zeros(8, 3, 4, 4)
LABELS = torch.zeros(8)
IDS = torch.zeros(4, 16, dtype=torch.long)


@pytest.mark.parametrize(
    ("batch", "facts"),
    [
        (IMAGES, (8, None)),
        (np.zeros((5, 2)), (5, None)),
        ((IMAGES, LABELS), (8, None)),
        ([IMAGES, LABELS], (8, None)),
        (Pair(IMAGES, LABELS), (8, None)),
        (((IMAGES, IMAGES), LABELS), (8, None)),
        ({"image": IMAGES, "label": LABELS}, (8, None)),
        ({"name": ["a"] * 8, "image": IMAGES}, (8, None)),
        ({"input_ids": IDS, "labels": IDS}, (4, 64)),
        (BatchEncoding(input_ids=IDS), (4, 64)),
        ({"inputs_embeds": torch.zeros(4, 16, 32)}, (4, 64)),
        ({"labels": LABELS, "input_ids": IDS}, (4, 64)),
        ({"input_ids": torch.zeros(7)}, (7, None)),
        (({"input_ids": IDS}, LABELS), (4, 64)),
        ([{"input_ids": IDS}], (4, 64)),
        ((0, IMAGES), (8, None)),
        (torch.tensor(3.0), (None, None)),
        ({"x": [1, 2, 3]}, (None, None)),
        ({}, (None, None)),
        ([], (None, None)),
        (None, (None, None)),
        (7, (None, None)),
        ("text", (None, None)),
        (["some", "texts"], (None, None)),
        (b"bytes", (None, None)),
        (Unknown(IMAGES), (None, None)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_batch_shows_its_samples_and_tokens(batch, facts):
    sizes = BatchSizes()
    for told in (size_of(batch), sizes.of(batch), sizes.of(batch)):
        assert told == facts
        assert all(value is None or type(value) is int for value in told)


def test_the_sizes_of_a_loader_are_those_of_each_batch_also_where_the_last_one_is_smaller_or_unlike_the_others():
    long = torch.zeros(4, 32, dtype=torch.long)
    batches = [
        (IMAGES, LABELS),
        (IMAGES[:3], LABELS[:3]),
        [IMAGES, LABELS],
        {"labels": LABELS, "input_ids": IDS},
        {"labels": LABELS, "input_ids": long},
        {"labels": LABELS, "input_ids": torch.zeros(7)},
        {"labels": LABELS, "pixels": IMAGES},
        (LABELS, IMAGES, LABELS),
        (torch.tensor(1.0), IMAGES, LABELS),
        None,
        {"pixels": IMAGES[:5]},
        {"other": IMAGES[:6]},
        ([IMAGES], LABELS),
        ([IMAGES[:2]], LABELS),
    ]
    sizes = BatchSizes()

    assert [sizes.of(batch) for batch in batches] == [size_of(batch) for batch in batches]


def test_a_sparse_or_meta_tensor_is_counted_without_its_data():
    assert size_of(torch.zeros(6, 2, device="meta")) == (6, None)
    assert size_of(torch.zeros(6, 2).to_sparse()) == (6, None)


def test_a_batch_that_contains_itself_ends():
    batch: list = []
    batch.append(batch)
    assert size_of(batch) == (None, None)


class Raising(dict):
    def __contains__(self, key):
        raise KeyError("this batch wants to be left alone")


@pytest.mark.parametrize("batch", [Raising(), SimpleNamespace(shape=3), SimpleNamespace(shape=("x",))])
def test_a_batch_that_raises_when_looked_at_shows_nothing_and_is_counted(batch):
    close_error_log()
    assert BatchSizes().of(batch) == (None, None)
    assert FAILURES["BatchSize"] == 1
    close_error_log()


parts = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.builds(np.zeros, st.lists(st.integers(0, 3), max_size=3)),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@given(parts)
def test_any_nest_of_parts_is_counted_or_not_but_never_raises(batch):
    FAILURES.clear()
    samples, tokens = size_of(batch)
    assert BatchSizes().of(batch) == (samples, tokens)
    assert samples is None or samples >= 0
    assert tokens is None or tokens >= 0
    assert not FAILURES
