"""`load_run`: the summary and the tables of a run, and how it looks in a notebook."""

from __future__ import annotations

import re
import sys

import pytest
from run_factory import make_run_folder

import traceml_core
from traceml_core.history.reader import HistoryUnreadableError
from traceml_core.reporting.stored_summary import load_summary


@pytest.fixture
def folder(tmp_path):
    return make_run_folder(tmp_path / "runs", steps=50, name="<script>alert(1)</script>")


def test_the_summary_is_the_runs(folder):
    assert traceml_core.load_run(folder).summary == load_summary(folder)


def test_the_newest_run_is_loaded_where_none_is_named(folder):
    assert traceml_core.load_run(runs_dir=folder.parent).folder == folder


def test_tables_are_columns_of_one_length(folder):
    run = traceml_core.load_run(folder)
    for name in run.tables:
        assert len({values.size for values in run[name].values()}) == 1, name
    assert run["step_time"]["step"][-2] == 50


def test_pandas_takes_every_table(folder):
    pandas = pytest.importorskip("pandas")
    run = traceml_core.load_run(folder)
    for name in run.tables:
        assert list(run.to_pandas(name).columns) == list(pandas.DataFrame(run[name]).columns)


def test_without_pandas_it_says_how_to_get_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(ImportError, match="pip install pandas"):
        traceml_core.load_run(folder).to_pandas("step_time")


def test_an_unknown_table_is_answered_with_those_there_are(folder):
    with pytest.raises(KeyError, match="there is no table 'steps'; there are step_time, "):
        traceml_core.load_run(folder)["steps"]


def test_a_copied_summary_has_its_own_tables_alone(folder, tmp_path):
    load_summary(folder)
    copy = tmp_path / "baseline.json"
    copy.write_bytes((folder / "final_summary.json").read_bytes())
    run = traceml_core.load_run(copy)

    assert run.tables == ["metrics", "issues", "series"]
    assert run["metrics"]["metric"].size


def test_a_damaged_history_leaves_the_summary(folder):
    load_summary(folder)
    (folder / "telemetry.sqlite").write_bytes(b"no database" * 100)
    run = traceml_core.load_run(folder)

    assert run.summary.run.steps == 50
    with pytest.raises(HistoryUnreadableError):
        run["step_time"]


def test_in_a_notebook_it_is_small_and_escaped_and_brings_no_colours(folder):
    shown = traceml_core.load_run(folder)._repr_html_()

    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert len(shown) < 4_000
    assert not re.search(r"color|background", shown)
