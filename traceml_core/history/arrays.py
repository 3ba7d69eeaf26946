"""Columns of Python values, as SQLite and msgpack give them, become numpy arrays by the fastest way there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def array_of(values: Sequence[Any], kind: Any) -> np.ndarray:
    """The array of `kind` (float64, int64 or object); None becomes NaN where it is float64."""
    if kind is object:
        return np.array(values, object)
    missing = values.count(None) if kind is np.float64 else 0
    if missing and missing == len(values):
        return np.full(len(values), np.nan, kind)
    if missing:
        return np.array(values, kind)
    return np.fromiter(values, kind, len(values))
