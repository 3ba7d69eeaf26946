"""Tables of a history, each read once however many sections ask for it."""

from __future__ import annotations

from traceml_core.history.joined_steps import JoinedSteps
from traceml_core.history.reader import HistoryReader
from traceml_core.statistics.reduced import ReducedTable


class TablesReadOnce:
    """The tables of one history file as it was when each was first asked for."""

    def __init__(self, reader: HistoryReader) -> None:
        """Read from `reader`, which stays the caller's to close."""
        self._reader = reader
        self._tables: dict[str, ReducedTable | None] = {}

    def reduced(self, table: str) -> ReducedTable | None:
        """The whole of a table, reduced; null where the history does not have it, or it is empty.

        Raises:
            HistoryUnreadableError: the file is damaged.
        """
        if table not in self._tables:
            self._tables[table] = self._reader.reduced(table)
        return self._tables[table]

    def joined_steps(self) -> JoinedSteps | None:
        """The steps that all ranks did, joined, beyond the first ones; null where no more than those were done.

        Raises:
            HistoryUnreadableError: the file is damaged.
        """
        return self._reader.joined_steps()
