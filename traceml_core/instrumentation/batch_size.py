"""How many samples and tokens a batch holds, told from its shape alone: no tensor is read, nothing is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from traceml_core.loggers.error_log import get_error_logger, report_failure

DEPTH_LIMIT = 4
_logger = get_error_logger("BatchSize")


def size_of(batch: Any) -> tuple[int | None, int | None]:
    """The samples and tokens of a batch; null where it does not show them.

    Samples are the first dimension of the first array found in nested mappings, lists and tuples. Tokens are the
    elements of `input_ids` of shape (samples, length), padding included.
    """
    try:
        kind = type(batch)
        if kind is list or kind is tuple:
            shape = getattr(batch[0], "shape", None) if batch else None
            return (shape[0], None) if shape else (_samples_of(batch, DEPTH_LIMIT), None)
        return _samples_of(batch, DEPTH_LIMIT), _tokens_of(batch)
    except Exception as error:  # noqa: BLE001 - a batch may be anything, and counting it must never end training
        report_failure(_logger, "counting a batch", error)
        return None, None


def _tokens_of(batch: Any) -> int | None:
    input_ids = batch.get("input_ids") if isinstance(batch, Mapping) else getattr(batch, "input_ids", None)
    shape = getattr(input_ids, "shape", None)
    return shape[0] * shape[1] if shape is not None and len(shape) == 2 else None


def _samples_of(batch: Any, depth: int) -> int | None:
    shape = getattr(batch, "shape", None)
    if shape is not None:
        return shape[0] if len(shape) else None
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
