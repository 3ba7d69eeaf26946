"""How a policy says from where on a number is bad."""

from __future__ import annotations

import msgspec

from traceml_core.diagnostics.model import Severity


class Threshold(msgspec.Struct, frozen=True):
    """A number is worth a warning from `warning` on, and critical from `critical` on (null: never)."""

    warning: float
    critical: float | None = None

    def severity(self, value: float | None) -> Severity | None:
        """How bad `value` is; null where it is fine or not known."""
        if value is None or not value >= self.warning:
            return None
        return "critical" if self.critical is not None and value >= self.critical else "warning"
