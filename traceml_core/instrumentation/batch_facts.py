"""How many samples and tokens a batch holds, read off the shapes of its tensors: no data is touched, nothing waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from traceml_core.loggers.error_log import get_error_logger, report_failure

TOKEN_KEYS = ("input_ids", "inputs_embeds", "tokens")
PARTS_LIMIT = 8
DEPTH_LIMIT = 4
NOTHING = (None, None)
logger = get_error_logger("BatchFacts")


def batch_facts(batch: Any) -> tuple[int | None, int | None]:
    """Samples and tokens of one micro-batch; null where the batch does not show them. Never raises.

    Samples are the first dimension of the first array in it, nested tuples, lists and mappings included. A mapping
    with `input_ids` of shape (samples, length) shows tokens too: all of them, padding included.
    """
    try:
        return _facts(batch, DEPTH_LIMIT)
    except Exception as error:  # noqa: BLE001 - an edge: a batch may be anything, and counting it must not end training
        report_failure(logger, "counting a batch", error)
        return NOTHING


def _facts(batch: Any, depth: int) -> tuple[int | None, int | None]:
    kind = type(batch)
    if kind is tuple or kind is list:
        return _parts_facts(batch[:PARTS_LIMIT], depth)
    if kind is dict:
        return _mapping_facts(batch, depth)
    shape = getattr(batch, "shape", None)
    if shape is not None:
        return (int(shape[0]), None) if len(shape) else NOTHING
    if isinstance(batch, Mapping):
        return _mapping_facts(batch, depth)
    if isinstance(batch, (tuple, list)):
        return _parts_facts(batch[:PARTS_LIMIT], depth)
    return NOTHING


def _parts_facts(parts: Any, depth: int) -> tuple[int | None, int | None]:
    if depth:
        for part in parts:
            facts = _facts(part, depth - 1)
            if facts[0] is not None:
                return facts
    return NOTHING


def _mapping_facts(batch: Mapping[Any, Any], depth: int) -> tuple[int | None, int | None]:
    for key in TOKEN_KEYS:
        if key in batch:
            shape = getattr(batch[key], "shape", None)
            if shape is not None and len(shape) > 1:
                samples = int(shape[0])
                return samples, samples * int(shape[1])
    return _parts_facts([value for value, _ in zip(batch.values(), range(PARTS_LIMIT), strict=False)], depth)
