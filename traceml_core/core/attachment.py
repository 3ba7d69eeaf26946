"""Whether trainers are to get a callback that their script does not name: `TRACEML_ATTACH`, as `traceml run` sets it.

Read at the start of every Python process of an environment and by every Lightning trainer: nothing is imported for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

VARIABLE = "TRACEML_ATTACH"
_YES = ("1", "true", "yes", "on")


def is_attachment_asked_for(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment asks for it."""
    return environment.get(VARIABLE, "").strip().lower() in _YES
