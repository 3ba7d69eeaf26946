"""Whole numbers as they may come over the wire: what SQLite can hold.

Whatever is beyond it is refused as it is decoded, not in the middle of a transaction.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
