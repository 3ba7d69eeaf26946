"""Mode `summary`: the summary so far, in `live_summary.json`, which all other displays read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from traceml_core.core.atomic_files import write_atomic
from traceml_core.core.run_folder import RunFolder

if TYPE_CHECKING:
    from traceml_core.reporting.summary import FinalSummary


class SummaryDriver:
    """Replaces `live_summary.json` by rename, so that a reader never sees half of it.

    It is deleted once `final_summary.json` is in place: no two files of a run folder can then disagree, and a display
    knows by it that the run has ended.
    """

    def __init__(self, folder: RunFolder) -> None:
        """Write into this run folder."""
        self._folder = folder

    def show(self, summary: FinalSummary) -> None:
        """Replace the file.

        Raises:
            OSError: it could not be written.
        """
        from traceml_core.reporting.summary import encode_summary

        write_atomic(self._folder.live_summary, encode_summary(summary))

    def close(self) -> None:
        """Delete the file, and the page that was made of it.

        Raises:
            OSError: one cannot be deleted.
        """
        from traceml_core.reporting.stored_summary import delete_live_files

        delete_live_files(self._folder.path)
