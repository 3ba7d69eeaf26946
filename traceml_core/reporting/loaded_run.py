"""A run, loaded into Python: its summary, its tables for pandas, and how it looks in a notebook."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

from traceml_core.core.presence import is_file, is_there
from traceml_core.core.run_folder import find_run
from traceml_core.core.units import count, seconds
from traceml_core.history.reader import HistoryReader
from traceml_core.reporting import final
from traceml_core.reporting.plain_text import one_line
from traceml_core.reporting.run_tables import SUMMARY_TABLES, Table, stored_table, stored_table_names
from traceml_core.reporting.stored_summary import load_summary, read_summary
from traceml_core.reporting.summary import FinalSummary

if TYPE_CHECKING:
    import pandas


LEFT = 'style="text-align:left"'


class LoadedRun:
    """A run's `summary`, and its tables by name: `run["step_time"]` is a dict of numpy columns, one entry a row.

    `tables` names them: those of the history (`step_time`, `process`, ..., and what was rolled up of them,
    `step_time_rollup`, ...), then `metrics`, `issues` and `series` of the summary. Tables are read when asked for.
    """

    def __init__(self, summary: FinalSummary, folder: Path | None) -> None:
        """A run with its folder; null where only its summary is at hand."""
        self.summary = summary
        self.folder = folder

    @property
    def tables(self) -> list[str]:
        """The names of all tables.

        Raises:
            HistoryUnreadableError: the run's history is damaged, or of a newer TraceML.
        """
        history = self._history()
        if history is None:
            return list(SUMMARY_TABLES)
        with HistoryReader(history) as reader:
            return [*stored_table_names(reader), *SUMMARY_TABLES]

    def __getitem__(self, name: str) -> Table:
        """A table: numpy columns of one length, NaN (text: None) where nothing was measured.

        Raises:
            KeyError: the run has no such table; the message names those it has.
            HistoryUnreadableError: the run's history is damaged, or of a newer TraceML.
        """
        if name in SUMMARY_TABLES:
            return SUMMARY_TABLES[name](self.summary)
        history = self._history()
        if history is not None:
            with HistoryReader(history) as reader:
                if name in stored_table_names(reader):
                    return stored_table(reader, name)
        raise KeyError(f"there is no table {name!r}; there are {', '.join(self.tables)}")

    def to_pandas(self, name: str) -> pandas.DataFrame:
        """A table as a DataFrame.

        Raises:
            ImportError: pandas is not installed.
            KeyError: the run has no such table.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install pandas, or use run[name] as it is") from error
        return pandas.DataFrame(dict(self[name]))

    def __repr__(self) -> str:
        """The run in one line."""
        run = self.summary.run
        said = f"{run.status}, {self.summary.primary_diagnosis.label}, {count(run.steps)} steps"
        return f"<traceml run {one_line(run.name, 60)!r}: {said} in {seconds(run.duration_s)}>"

    def _repr_html_(self) -> str:
        """The verdict and the card's figures, in the notebook's own colours: light and dark both fit."""
        rows = "".join(
            f"<tr><th {LEFT}>{_escaped(title)}</th><td {LEFT}>{_escaped(text)}</td></tr>"
            for title, text in self._rows()
        )
        run, issue = self.summary.run, self.summary.primary_diagnosis
        return (
            f"<div><strong>TraceML {_escaped(run.name)}</strong>: {_escaped(run.status)}, {count(run.steps)} steps in "
            f"{_escaped(seconds(run.duration_s))}<br><strong>{_escaped(issue.label)}</strong> {_escaped(issue.summary)}"
            f"<table>{rows}</table></div>"
        )

    def _rows(self) -> list[tuple[str, str]]:
        issue = self.summary.primary_diagnosis
        rows = [("Next", issue.action)] if issue.action else []
        for spec in final.SECTIONS:
            section = self.summary.sections.get(spec.name)
            if section is not None:
                rows += [(line.title, line.text) for line in spec.card_lines(section, self.summary.run)]
        return rows

    def _history(self) -> Path | None:
        path = None if self.folder is None else self.folder / "telemetry.sqlite"
        return path if path is not None and is_there(path) else None


def load_run(run: str | Path | None = None, runs_dir: str | Path = "traceml_runs") -> LoadedRun:
    """Load a run: a run folder, a name in `runs_dir`, or a `final_summary.json`; None is the newest run.

    As `traceml report` does, it builds the report of a run that was killed, and writes it.

    Raises:
        RunLookupError: there is no such run.
        SummaryUnavailableError: there is neither a summary that this version reads nor rows to build one from.
    """
    path = None if run is None else Path(run)
    if path is not None and is_file(path) and path.suffix == ".json":
        return LoadedRun(read_summary(path), _folder_of(path))
    folder = find_run(None if run is None else str(run), str(runs_dir))
    return LoadedRun(load_summary(folder), folder)


def _folder_of(summary: Path) -> Path | None:
    """The run folder around a summary; null for a copy that lies elsewhere."""
    return summary.parent if is_there(summary.parent / "telemetry.sqlite") else None


def _escaped(text: str) -> str:
    return html.escape(one_line(text))
