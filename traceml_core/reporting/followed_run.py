"""A run followed from outside, by its folder alone: what its newest summary says, and whether it still goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from traceml_core.core.presence import is_there
from traceml_core.core.run_folder import open_run_folder, read_manifest
from traceml_core.reporting.owner import SILENT_AFTER_S, owner_lives, silence_of
from traceml_core.reporting.stored_summary import SummaryUnavailableError, read_summary
from traceml_core.reporting.summary import FinalSummary

# An aggregator whose owner is gone writes the report within so long, unless it is gone as well.
REPORT_GRACE_S = 15.0


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a run. `summary` is null before the first one; `age_s` is for how long it has been the same.

    `lost`: whoever trained and whoever would have written its report are gone; the history is what is left.
    """

    state: Literal["running", "ending", "ended", "lost"]
    summary: FinalSummary | None
    age_s: float


class FollowedRun:
    """The run in a folder, looked at again and again. Nothing is ever written."""

    def __init__(
        self,
        folder: Path,
        now_s: Callable[[], float] = time.monotonic,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        """Follow the run in `folder`."""
        self._folder = open_run_folder(folder)
        self._now_s = now_s
        self._unix_s = unix_s
        self._summary: FinalSummary | None = None
        self._seen: tuple[int, int] | None = None
        self._changed_s = now_s()
        self._gone_since_s: float | None = None

    def look(self) -> Sighting:
        """The run as it is now.

        Raises:
            SummaryUnavailableError: a summary is there and cannot be read.
        """
        if is_there(self._folder.final_summary_json):
            return self._sighting("ended", read_summary(self._folder.final_summary_json))
        self._read_live()
        if is_there(self._folder.final_summary_json):  # since then: the live one is deleted right after it
            return self._sighting("ended", read_summary(self._folder.final_summary_json))
        silent_s = silence_of(self._folder.path, self._unix_s())
        if owner_lives(read_manifest(self._folder.path), silent_s=silent_s):
            self._gone_since_s = None
            return self._sighting("running", self._summary)
        now_s = self._now_s()
        self._gone_since_s = now_s if self._gone_since_s is None else self._gone_since_s
        report_may_come = now_s - self._gone_since_s < REPORT_GRACE_S and silent_s < SILENT_AFTER_S
        return self._sighting("ending" if report_may_come else "lost", self._summary)

    def _read_live(self) -> None:
        path = self._folder.live_summary
        try:
            status = path.stat()
        except OSError:
            return
        seen = (status.st_mtime_ns, status.st_ino)
        if seen == self._seen:
            return
        try:
            self._summary = read_summary(path)
        except SummaryUnavailableError:
            if is_there(path):
                raise
            return  # the run has ended meanwhile
        self._seen, self._changed_s = seen, self._now_s()

    def _sighting(self, state: Literal["running", "ending", "ended", "lost"], summary: FinalSummary | None) -> Sighting:
        return Sighting(state=state, summary=summary, age_s=self._now_s() - self._changed_s)
