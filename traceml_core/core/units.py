"""Numbers as people read them: the only place that turns a measured number into text.

Every function takes a plain number or `None` and gives `–` for `None`, which means 'not measured'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

MISSING = "–"


def percent(share: float | None) -> str:
    """A share from 0 to 1 as a whole percentage: `43%`; `<1%` and `>99%` where rounding would tell an untruth."""
    if share is None or not math.isfinite(share):
        return MISSING
    value = share * 100
    if 0 < value < 0.5:
        return "<1%"
    if 99.5 <= value < 100:
        return ">99%"
    return f"{value:.0f}%"


def percent_change(share: float | None, *, sign: bool = True) -> str:
    """A change as a percentage, with one decimal below ten: `+14%`, `-2.3%`, `0.0%`; `2.3%` where `sign` is off."""
    if share is None or not math.isfinite(share):
        return MISSING
    return f"{_change_digits(share, '+' if sign else '')}%"


def percent_exact(share: float) -> str:
    """A share that a person chose, as it was chosen: `5%`, `2.5%`."""
    return f"{share * 100:.3g}%"


def percent_range(low: float, high: float) -> str:
    """A range of changes as percentages: `11 to 17%`, `-0.4 to 2.1%`."""
    return f"{_change_digits(low, '')} to {_change_digits(high, '')}%"


def milliseconds(value: float | None) -> str:
    """Milliseconds in the unit that reads best: `52 µs`, `9.81 ms`, `123 ms`, `2.40 s`."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value != 0 and abs(value) < 0.0995:
        return f"{value * 1000:.0f} µs"
    if abs(value) < 999.5:
        return f"{_three_digits(value)} ms"
    return seconds(value / 1000)


def seconds(value: float | None) -> str:
    """A length of time in seconds: `80 ms`, `2.40 s`, `48.1 s`, `3 min 20 s`, `1 h 05 min`, `2 d 03 h`."""
    if value is None or not math.isfinite(value):
        return MISSING
    if 0 < value < 0.0995:
        return milliseconds(value * 1000)
    if value < 99.95:
        return f"{_three_digits(value)} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(value / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(value / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def byte_size(value: float | None) -> str:
    """Bytes in binary units, three digits: `512 B`, `38.2 MiB`, `1.20 GiB`."""
    if value is None or not math.isfinite(value):
        return MISSING
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 999.5:
            return f"{amount:.0f} B" if unit == "B" else f"{_three_digits(amount)} {unit}"
        amount /= 1024
    return f"{_three_digits(amount)} TiB"


def rate(per_second: float | None) -> str:
    """So many a second, without its unit: `0.42`, `31.8`, `1,240`."""
    if per_second is None or not math.isfinite(per_second):
        return MISSING
    return f"{per_second:,.0f}" if abs(per_second) >= 99.95 else _three_digits(per_second)


def count(value: float | None) -> str:
    """A whole number with its thousands apart: `12,345`."""
    return f"{value:,.0f}" if value is not None and math.isfinite(value) else MISSING


def measured(name: str, value: float | None) -> str:
    """A number in the unit that its name ends in: `measured("rss_bytes", 1e9)` is `954 MiB`."""
    if value is None or not math.isfinite(value):
        return MISSING
    for ending, unit in _UNITS.items():
        if name.endswith(ending):
            return unit(value)
    return count(value) if float(value).is_integer() else rate(value)


def rank_ranges(ranks: Sequence[int], most: int = 6) -> str:
    """Ranks in as few words as it takes: `rank 1`, `ranks 0-3, 7`; of many ranges the first, and how many more."""
    if not ranks:
        return "no rank"
    ranges: list[list[int]] = []
    for rank in sorted(ranks):
        if ranges and rank == ranges[-1][1] + 1:
            ranges[-1][1] = rank
        else:
            ranges.append([rank, rank])
    shown = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges[:most])
    left = sum(last - first + 1 for first, last in ranges[most:])
    return f"rank{'' if len(ranks) == 1 else 's'} {shown}" + (f" and {count(left)} more" if left else "")


def _three_digits(value: float) -> str:
    """About three significant digits, never an exponent: `0`, `0.42`, `9.81`, `48.1`, `123`."""
    if abs(value) < 9.995:
        return f"{value:.2f}" if value else "0"
    return f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"


def _change_digits(share: float, sign: str) -> str:
    value = share * 100
    digits = 1 if abs(value) < 9.95 else 0
    # Adding 0.0 makes of a rounded -0.0 the zero that it is.
    rounded = round(value, digits) + 0.0
    return f"{rounded:{sign if rounded else ''},.{digits}f}"


_UNITS: dict[str, Callable[[float], str]] = {
    "_ms": milliseconds,
    "_bytes": byte_size,
    "bytes_per_step": byte_size,
    "_share": percent,
    "_percent": lambda value: percent(value / 100),
    "_hours": lambda value: seconds(value * 3600),
    "_s": seconds,
    "_c": lambda value: f"{count(value)} °C",
    "_w": lambda value: f"{count(value)} W",
}
