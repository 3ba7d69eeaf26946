"""How many samples and tokens a batch holds, told from its shape alone: no tensor is read, nothing is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEPTH_LIMIT = 4


def size_of(batch: Any) -> tuple[int | None, int | None]:
    """The samples and tokens of a batch; null where it does not show them.

    Samples are the first dimension of the first array found in nested mappings, lists and tuples. Tokens are the
    elements of `input_ids` of shape (samples, length), padding included.
    """
    tokens = None
    if isinstance(batch, Mapping) or hasattr(batch, "input_ids"):
        tokens = _tokens_of(batch)
    return _samples_of(batch, DEPTH_LIMIT), tokens


def _tokens_of(batch: Any) -> int | None:
    input_ids = batch.get("input_ids") if isinstance(batch, Mapping) else batch.input_ids
    shape = getattr(input_ids, "shape", None)
    if shape is None or len(shape) != 2:
        return None
    return int(shape[0]) * int(shape[1])


def _samples_of(batch: Any, depth: int) -> int | None:
    shape = getattr(batch, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else None
    if not depth:
        return None
    if isinstance(batch, Mapping):
        batch = batch.values()
    elif not isinstance(batch, (list, tuple)):
        return None
    for part in batch:
        samples = _samples_of(part, depth - 1)
        if samples is not None:
            return samples
    return None
