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


def occasions(values: Sketch, of_habit: int = 1, share_of_ceiling: float = 0.1) -> int:
    """How often something happened to a degree that matters: a tenth of the `of_habit`-th largest time, or more.

    One save that is far longer than a hundred others does not make these count for nothing. Of what happened less often
    than a habit, the largest is what counts.
    """
    if not values.count or values.maximum <= 0:
        return 0
    ceiling = _largest(values, of_habit) if 1 < of_habit <= values.count else values.maximum
    return values.count_from((ceiling if ceiling > 0 else values.maximum) * share_of_ceiling)


def _largest(values: Sketch, place: int) -> float:
    return values.quantile((values.count - place + 1) / values.count)
