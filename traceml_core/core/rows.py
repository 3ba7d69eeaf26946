"""Typed telemetry rows and the table that each row type stands for.

A row type is declared once, by the sampler that makes it. The wire format and the SQLite table are derived from it.
"""

from __future__ import annotations

import types
import typing
from typing import Any, ClassVar

import msgspec


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of every telemetry row. A field is an `int`, `float` or `str`, or one of them `| None` for 'not measured'.

    Names carry their unit: `forward_ns`, `rss_bytes`, `cpu_percent`. Rank and incarnation are not fields: they belong
    to the batch that carries the row, and are columns of every table.
    """

    table: ClassVar[str]


class Column(msgspec.Struct, frozen=True):
    """One column of a row table."""

    name: str
    kind: type[int] | type[float] | type[str]
    nullable: bool


def columns_of(row_type: type[Row]) -> tuple[Column, ...]:
    """The columns of a row type, in field order.

    Raises:
        TypeError: a field is none of the accepted types; the message names it.
    """
    hints = typing.get_type_hints(row_type)
    return tuple(_column(row_type, name, hints[name]) for name in row_type.__struct_fields__)


def _column(row_type: type[Row], name: str, hint: Any) -> Column:
    nullable = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        arguments = typing.get_args(hint)
        nullable = type(None) in arguments
        rest = [argument for argument in arguments if argument is not type(None)]
        hint = rest[0] if len(rest) == 1 else hint
    if hint not in (int, float, str):
        raise TypeError(
            f"{row_type.__name__}.{name} is {hint!r}; a row field is int, float or str, or one of them | None"
        )
    return Column(name, hint, nullable)
