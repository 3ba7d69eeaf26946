"""How many samples and tokens a batch holds, told from its shape alone: no tensor is read, nothing is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from traceml_core.loggers.error_log import get_error_logger, report_failure

TOKEN_KEYS = ("input_ids", "inputs_embeds", "tokens")
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
        return _size_of(batch, DEPTH_LIMIT)
    except Exception as error:  # noqa: BLE001 - a batch may be anything, and counting it must never end training
        report_failure(_logger, "counting a batch", error)
        return UNKNOWN


def _size_of(batch: Any, depth: int) -> tuple[int | None, int | None]:
    kind = type(batch)
    if kind is list or kind is tuple:
        return _size_of_parts(batch, depth)
    if kind is dict:
        return _size_of_mapping(batch, depth)
    shape = getattr(batch, "shape", None)
    if shape is not None:
        return (int(shape[0]), None) if len(shape) else UNKNOWN
    if isinstance(batch, Mapping):
        return _size_of_mapping(batch, depth)
    return _size_of_parts(batch, depth) if isinstance(batch, (tuple, list)) else UNKNOWN


def _size_of_parts(parts: Any, depth: int) -> tuple[int | None, int | None]:
    if depth:
        for part in parts[:PARTS_LIMIT]:
            size = _size_of(part, depth - 1)
            if size[0] is not None:
                return size
    return UNKNOWN


def _size_of_mapping(batch: Mapping[Any, Any], depth: int) -> tuple[int | None, int | None]:
    for key in TOKEN_KEYS:
        if key in batch:
            shape = getattr(batch[key], "shape", None)
            if shape is not None and len(shape) > 1:
                samples = int(shape[0])
                return samples, samples * int(shape[1])
    return _size_of_parts(list(batch.values()), depth)
