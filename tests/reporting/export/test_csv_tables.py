"""The tables of a run: pandas reads them, and they say what is stored."""

from __future__ import annotations

import pytest
import run_factory
from click.testing import CliRunner
from run_factory import RunPlan, make_run_folder, rolled_up_early

from traceml_core.cli import main
from traceml_core.core.rows import Row
from traceml_core.history import bounded_rows
from traceml_core.history.reader import HistoryReader
from traceml_core.reporting.run_tables import SUMMARY_TABLES
from traceml_core.reporting.stored_summary import load_summary

pandas = pytest.importorskip("pandas")


OWNER = 'an "owner", two\nlines'


class RoomRow(Row, frozen=True):
    """A row of which no section knows anything."""

    table = "room"

    at_ns: int
    place: str
    room_temperature_c: float | None


def export(folder, output):
    return CliRunner().invoke(main, ["export", str(folder), "--format", "csv", "--output", str(output)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with rolled_up_early(detail=128, kept=1_000):
        return make_run_folder(
            tmp_path_factory.mktemp("runs"), RunPlan(steps=2_000, owners_ms={'an "owner", two\nlines': 1})
        )


@pytest.fixture(scope="module")
def tables(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "tables"
    assert export(folder, output).exit_code == 0
    return {path.stem: pandas.read_csv(path) for path in output.iterdir()}


def test_there_is_a_table_for_each_row_type_each_roll_up_and_the_summary(tables):
    assert set(tables) >= {row_type.table for row_type in run_factory.ROW_TYPES} | set(SUMMARY_TABLES)
    assert "step_time_rollup" in tables


def test_columns_are_named_as_they_are_stored_and_hold_what_is_stored(tables, folder):
    with HistoryReader(folder / "telemetry.sqlite") as reader:
        stored = reader.columns("step_time")
    table = tables["step_time"]

    assert list(table.columns) == [*stored, "rolled_up"]
    for name, values in stored.items():
        assert (table[name].fillna(-1) == pandas.Series(values).fillna(-1)).all(), name
    assert table["interval_ns"].dtype == "int64"


def test_roll_ups_hold_count_sum_and_extremes(tables):
    rolled = tables["step_time_rollup"]

    assert (rolled["forward_ns_count"] == rolled["rows"]).all()
    mean = rolled["forward_ns_sum"] / rolled["forward_ns_count"]
    assert ((rolled["forward_ns_min"] <= mean) & (mean <= rolled["forward_ns_max"])).all()


def test_rows_and_roll_ups_together_have_every_step(tables):
    steps = set(tables["step_time"]["step"].dropna().astype(int))
    for first, last in zip(tables["step_time_rollup"]["step_min"], tables["step_time_rollup"]["step_max"], strict=True):
        if first == first:
            steps |= set(range(int(first), int(last) + 1))

    assert steps == set(range(1, 2_001))


def added_up(tables, table, name):
    """As docs/export.md says: the rows that are in no roll-up, and the roll-ups."""
    rows, rolled = tables[table], tables[f"{table}_rollup"]
    return rows[name][~rows["rolled_up"]].sum() + rolled[f"{name}_sum"].sum()


@pytest.mark.parametrize("restart_after", [None, 1_000])
def test_rows_that_are_in_no_roll_up_and_the_roll_ups_have_everything_once(tmp_path, restart_after):
    plan = RunPlan(steps=1_500, restart_after=restart_after, redone_steps=600)
    whole = make_run_folder(tmp_path / "whole", plan)
    with rolled_up_early(detail=32, kept=40) as patch:
        patch.setattr(bounded_rows, "LARGE_CHUNK_ROWS", 16)
        folder = make_run_folder(tmp_path / "rolled", plan)
    export(folder, tmp_path / "tables")
    tables = {path.stem: pandas.read_csv(path) for path in (tmp_path / "tables").iterdir()}

    with HistoryReader(whole / "telemetry.sqlite") as reader:
        for table, name in (("step_time", "forward_ns"), ("process_memory", "rss_bytes")):
            every = reader.columns(table, [name])[name]
            rows, rolled = tables[table], tables[f"{table}_rollup"]
            assert rows["rolled_up"].any()
            assert (~rows["rolled_up"]).sum() + rolled["rows"].sum() == every.size
            assert added_up(tables, table, name) == pytest.approx(every.sum())


def test_a_table_without_roll_ups_has_no_mark(tmp_path):
    export(make_run_folder(tmp_path / "runs", steps=5), tmp_path / "tables")
    assert "rolled_up" not in pandas.read_csv(tmp_path / "tables" / "step_time.csv").columns


def test_text_of_the_users_own_survives(tables):
    assert set(tables["owner_time"]["owner"]) == {OWNER}


def test_the_first_issue_is_the_verdict(tables, folder):
    issue = load_summary(folder).primary_diagnosis

    assert list(tables["issues"].iloc[0][["kind", "summary"]]) == [issue.kind, issue.summary]


def test_rows_without_a_section_are_exported_in_both_formats(tmp_path, monkeypatch):
    def with_room(plan, rank, steps, sampled=run_factory._sampled_rows):
        yield from sampled(plan, rank, steps)
        yield RoomRow(steps[0].started_ns, "left", 21.5)

    monkeypatch.setattr(run_factory, "ROW_TYPES", (*run_factory.ROW_TYPES, RoomRow))
    monkeypatch.setattr(run_factory, "_sampled_rows", with_room)
    folder = make_run_folder(tmp_path / "runs", steps=5)
    export(folder, tmp_path / "tables")
    CliRunner().invoke(main, ["export", str(folder), "--output", str(tmp_path / "trace.json")])

    assert pandas.read_csv(tmp_path / "tables" / "room.csv")["room_temperature_c"].tolist() == [21.5]
    assert (
        '"name":"room left","pid":1,"ts":0.0,"args":{"room_temperature_c":21.5}'
        in (tmp_path / "trace.json").read_text()
    )


def test_a_folder_that_is_there_is_not_written_to(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    result = export(folder, tmp_path / "mine")

    assert result.exit_code == 2
    assert "exists already, and is left as it is" in result.stderr
    assert not list((tmp_path / "mine").iterdir())
