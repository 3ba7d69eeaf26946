"""How many samples and tokens a batch holds, told from its shape alone: no tensor is read, nothing is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from traceml_core.loggers.error_log import get_error_logger, report_failure

TOKEN_KEYS = ("input_ids", "inputs_embeds", "tokens")
_TOKEN_KEYS = frozenset(TOKEN_KEYS)
PARTS_LIMIT = 8
DEPTH_LIMIT = 4
UNKNOWN = (None, None)
_logger = get_error_logger("BatchSize")


def size_of(batch: Any) -> tuple[int | None, int | None]:
    """The samples and tokens of a batch; null where it does not show them. Never raises.

    Samples are the first dimension of the first array found in nested mappings, lists and tuples. Tokens are the
    elements of `input_ids` of shape (samples, length), padding included.
    """
    try:
        # Most batches are one of these, with an array in front.
        kind, first = type(batch), None
        if kind is list or kind is tuple:
            first = batch[0] if batch else None
        elif kind is dict and _TOKEN_KEYS.isdisjoint(batch):
            first = next(iter(batch.values()), None)
        shape = getattr(first, "shape", ())
        if shape:
            return int(shape[0]), None
        return _size_of(batch, DEPTH_LIMIT)
    except Exception as error:  # noqa: BLE001 - a batch may be anything, and counting it must never end training
        report_failure(_logger, "counting a batch", error)
        return UNKNOWN


def _size_of(batch: Any, depth: int) -> tuple[int | None, int | None]:
    if isinstance(batch, (tuple, list)):
        return _size_of_parts(batch, depth)
    if isinstance(batch, (dict, Mapping)):  # a dict is one too, and found sooner
        for key in TOKEN_KEYS:
            if key in batch:
                shape: Sequence[Any] = getattr(batch[key], "shape", ())
                if len(shape) > 1:
                    return int(shape[0]), int(shape[0]) * int(shape[1])
        return _size_of_parts(list(batch.values()), depth)
    shape = getattr(batch, "shape", ())
    return (int(shape[0]), None) if shape else UNKNOWN


def _size_of_parts(parts: Sequence[Any], depth: int) -> tuple[int | None, int | None]:
    for part in parts[:PARTS_LIMIT] if depth else ():
        shape = getattr(part, "shape", None)
        if shape:
            return int(shape[0]), None
        size = _size_of(part, depth - 1)
        if size[0] is not None:
            return size
    return UNKNOWN
