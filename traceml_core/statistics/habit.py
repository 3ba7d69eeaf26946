"""What happens again and again, told from what happened once: a sum that single incidents cannot carry."""

from __future__ import annotations

import numpy as np


def habitual_sum(values: np.ndarray, occasions: int) -> float:
    """The sum of `values`, each counted up to the `occasions`-th largest of them; NaN counts as 0.

    One long save among a hundred short ones counts as a short one. Fewer values than `occasions` are no habit: 0.
    """
    known = np.nan_to_num(values, nan=0.0)
    if known.size < occasions:
        return 0.0
    ceiling = np.partition(known, -occasions)[-occasions]
    return float(np.minimum(known, ceiling).sum())


def occasions(values: np.ndarray, share_of_largest: float = 0.1) -> int:
    """How often something happened to a degree that matters: at least a tenth of its largest time."""
    known = np.nan_to_num(values, nan=0.0)
    largest = known.max(initial=0.0)
    return int((known >= largest * share_of_largest).sum()) if largest > 0 else 0
