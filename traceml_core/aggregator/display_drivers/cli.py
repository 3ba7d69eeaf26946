"""Mode `cli`: the run in a line now and then, in the terminal that trains."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from traceml_core.aggregator.display_drivers.summary import SummaryDriver
from traceml_core.core.run_folder import RunFolder

if TYPE_CHECKING:
    from traceml_core.reporting.summary import FinalSummary

# A shorter run has its report soon.
FIRST_LINE_S = 10.0
# A verdict that stays the same is said again after the longer time, another one after the shorter.
SAME_VERDICT_S = 60.0
OTHER_VERDICT_S = 10.0


class CliDriver:
    """Keeps `live_summary.json` like the mode `summary`, and gives a line when one is due."""

    def __init__(self, folder: RunFolder, now_s: Callable[[], float] = time.monotonic) -> None:
        """Show the run of this folder."""
        self._summary_driver = SummaryDriver(folder)
        self._now_s = now_s
        self._said_s = now_s() + FIRST_LINE_S - SAME_VERDICT_S
        self._said: tuple[str, str] | None = None

    def show(self, summary: FinalSummary) -> str | None:
        """Replace the file; the compact line, where it is due.

        Raises:
            OSError: the file could not be written.
        """
        self._summary_driver.show(summary)
        verdict = (summary.primary_diagnosis.kind, summary.primary_diagnosis.severity)
        passed_s = self._now_s() - self._said_s
        wait_s = SAME_VERDICT_S if self._said in (None, verdict) else OTHER_VERDICT_S
        if passed_s < wait_s:
            return None
        from traceml_core.renderers.compact import compact_line

        self._said, self._said_s = verdict, self._now_s()
        return compact_line(summary)

    def close(self) -> None:
        """Delete the file."""
        self._summary_driver.close()
