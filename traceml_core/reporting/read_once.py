"""Tables of a history, each read once however many sections ask for it."""

from __future__ import annotations

from traceml_core.history.reader import Columns, HistoryReader


class TablesReadOnce:
    """The tables of one history file as it was when each was first asked for."""

    def __init__(self, reader: HistoryReader) -> None:
        """Read from `reader`, which stays the caller's to close."""
        self._reader = reader
        self._tables: dict[str, Columns] = {}

    def columns(self, table: str) -> Columns:
        """All columns of a table; none where the history does not have it.

        Raises:
            HistoryUnreadableError: the file is damaged.
        """
        if table not in self._tables:
            self._tables[table] = self._reader.columns(table)
        return self._tables[table]
