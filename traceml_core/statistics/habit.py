"""What happens again and again, told from what happened once: a sum that single incidents cannot carry."""

from __future__ import annotations

import numpy as np

from traceml_core.statistics.sketch import Sketch


def habitual_sum(values: np.ndarray, occasions: int) -> float:
    """The sum of `values`, each counted up to the `occasions`-th largest of them; NaN counts as 0.

    One long save among a hundred short ones counts as a short one. Fewer values than `occasions` are no habit: 0.
    """
    known = np.nan_to_num(values, nan=0.0)
    if known.size < occasions:
        return 0.0
    ceiling = np.partition(known, -occasions)[-occasions]
    return float(np.minimum(known, ceiling).sum())


def habitual_total(values: Sketch, occasions: int) -> float:
    """`habitual_sum` of what a sketch counted; the `occasions`-th largest is known within 1 %."""
    if values.count < occasions:
        return 0.0
    largest = [values.maximum, *(_largest(values, place) for place in range(2, occasions + 1))]
    excess = sum(value - largest[-1] for value in largest)
    return max(values.total - excess, 0.0)


def occasions(values: Sketch, share_of_largest: float = 0.1) -> int:
    """How often something happened to a degree that matters: at least a tenth of its largest time."""
    return values.count_from(values.maximum * share_of_largest) if values.count and values.maximum > 0 else 0


def _largest(values: Sketch, place: int) -> float:
    return values.quantile((values.count - place + 1) / values.count)
