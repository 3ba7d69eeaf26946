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


class BatchSizes:
    """The sizes of one loader's batches.

    They are looked for first where the last one was found: in the same place of a batch of the same type, with as many
    parts. A loader whose batches differ in more than that is one of several.
    """

    __slots__ = ("_has_tokens", "_kind", "_length", "_place")

    def __init__(self) -> None:
        """Nothing is known of the batches yet."""
        self._kind: Any = None
        self._length = 0
        self._place: Any = None
        self._has_tokens = False

    def of(self, batch: Any) -> tuple[int | None, int | None]:
        """What `size_of` says of a batch. Never raises."""
        try:
            if type(batch) is not self._kind or len(batch) != self._length:
                self._remember(batch)
            elif self._place is not None:
                shape = batch[self._place].shape
                return shape[0], shape[0] * shape[1] if self._has_tokens else None
        except Exception:  # noqa: BLE001 - it is of another make after all
            self._kind = None
        return size_of(batch)

    def _remember(self, batch: Any) -> None:
        """Where the size of a batch lies; null where that is none of its own parts."""
        self._kind, self._place, self._has_tokens = None, None, False
        if isinstance(batch, Mapping):
            place: Any = _token_key(batch)
            self._has_tokens = place is not None
            if place is None:
                place = next(iter(batch), None)
        elif isinstance(batch, (list, tuple)):
            place = 0 if batch else None
        else:
            return
        if place is not None and _shape(batch[place]):
            self._place = place
        self._kind, self._length = type(batch), len(batch)


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


def _shape(part: Any) -> Sequence[Any]:
    shape: Sequence[Any] = getattr(part, "shape", ())
    return shape


def _token_key(batch: Mapping[Any, Any]) -> str | None:
    """Which part of a batch has its tokens."""
    return next((key for key in TOKEN_KEYS if key in batch and len(_shape(batch[key])) > 1), None)


def _size_of(batch: Any, depth: int) -> tuple[int | None, int | None]:
    if isinstance(batch, (tuple, list)):
        return _size_of_parts(batch, depth)
    if isinstance(batch, (dict, Mapping)):  # a dict is one too, and found sooner
        key = _token_key(batch)
        if key is not None:
            samples, length = batch[key].shape[:2]
            return int(samples), int(samples) * int(length)
        return _size_of_parts(list(batch.values()), depth)
    shape = _shape(batch)
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
