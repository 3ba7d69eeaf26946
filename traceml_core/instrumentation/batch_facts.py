"""How many samples and tokens a batch holds, read off the shapes of its tensors: no data is touched, nothing waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TOKEN_KEYS = ("input_ids", "inputs_embeds", "tokens")
LOOK_AT = 8


def batch_facts(batch: Any) -> tuple[int | None, int | None]:
    """Samples and tokens of one micro-batch; null where the batch does not show them.

    A tensor has as many samples as its first dimension. A mapping with `input_ids` of shape (samples, length) shows
    tokens too, padding included.
    """
    shape = getattr(batch, "shape", None)
    if shape is not None:
        return (int(shape[0]) if len(shape) else None), None
    if isinstance(batch, Mapping) or hasattr(batch, "keys"):
        return _mapping_facts(batch)
    if isinstance(batch, (tuple, list)):
        for part in batch[:LOOK_AT]:
            facts = batch_facts(part) if not isinstance(part, (str, bytes)) else (None, None)
            if facts[0] is not None:
                return facts
    return None, None


def _mapping_facts(batch: Any) -> tuple[int | None, int | None]:
    for key in TOKEN_KEYS:
        if key in batch:
            shape = getattr(batch[key], "shape", ())
            if len(shape) >= 2:
                return int(shape[0]), int(shape[0]) * int(shape[1])
    for index, value in enumerate(batch.values()):
        shape = getattr(value, "shape", None)
        if shape is not None and len(shape):
            return int(shape[0]), None
        if index == LOOK_AT:
            break
    return None, None
