"""The trace of a run keeps the documented rules of the trace event format, and says what the run's rows say.

The rules are those of "Trace Event Format", as Perfetto reads it: a JSON object with `traceEvents`; complete events (X)
with `ts` and `dur` in microseconds that nest on their track; counters (C) with numbers alone; metadata (M) that names
processes and threads.
"""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
from click.testing import CliRunner
from run_factory import GIB, RunPlan, make_run_folder, rolled_up_early

from traceml_core.cli import main
from traceml_core.core.phases import Phase
from traceml_core.history import rank_window
from traceml_core.history.reader import HistoryReader
from traceml_core.reporting.export.step_slices import LAYOUT
from traceml_core.reporting.stored_summary import load_summary

PLAN = RunPlan(
    steps=3_000,
    ranks=2,
    gpu_peak_bytes=lambda number: GIB + number,
    around_ms={Phase.VALIDATION: (500, 900.0)},
    name="a <script> name",
)
# What a float holds of a moment in nanoseconds since 1970, on both ends of a slice.
ROUNDING_US = 1.0


def export(folder, tmp_path, *arguments):
    output = tmp_path / "trace.json"
    result = CliRunner().invoke(main, ["export", str(folder), "--output", str(output), *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(output.read_text())


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """A run of which most steps were rolled up, and its history."""
    with rolled_up_early(detail=128, kept=1_000) as patch:
        patch.setattr(rank_window, "PORTION_STEPS", 100)
        return make_run_folder(tmp_path_factory.mktemp("runs"), PLAN)


@pytest.fixture(scope="module")
def trace(long_run, tmp_path_factory):
    return export(long_run, tmp_path_factory.mktemp("out"))


def slices_by_track(trace):
    tracks = defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append(event)
    return tracks


def with_phases(events):
    """Every slice of steps, and the slices of its phases."""
    keys = {phase.key for phase in LAYOUT}
    found = []
    for event in events:
        if event["name"] in keys:
            found[-1][1].append(event)
        else:
            found.append((event, []))
    return found


def step_slices_of(trace, rank):
    return [
        (event, phases) for event, phases in with_phases(slices_by_track(trace)[rank + 1, rank + 1]) if "args" in event
    ]


def end_of(event):
    return event["ts"] + event["dur"]


def test_every_event_has_the_fields_of_its_kind(trace):
    for event in trace["traceEvents"]:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert event["pid"] > 0
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "process_sort_index")
            assert event["args"]
        elif event["ph"] == "C":
            assert event["ts"] >= 0
            assert event["args"]
            assert all(isinstance(value, (int, float)) for value in event["args"].values())
        else:
            assert event["ph"] == "X"
            assert event["ts"] >= 0
            assert event["dur"] > 0


def test_slices_of_a_track_nest_and_none_overlaps_another(trace):
    for events in slices_by_track(trace).values():
        stack = []
        for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
            while stack and stack[-1]["ts"] + stack[-1]["dur"] <= event["ts"] + 1e-3:
                stack.pop()
            assert not stack or event["ts"] + event["dur"] <= stack[-1]["ts"] + stack[-1]["dur"] + 1e-3, event
            stack.append(event)
            assert len(stack) <= 2


def test_each_rank_has_one_named_track(trace):
    named = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in trace["traceEvents"]
        if event["name"] == "thread_name"
    }

    assert sorted(named.values()) == ["rank 0 steps", "rank 1 steps"]
    assert set(slices_by_track(trace)) == set(named)


@pytest.mark.parametrize("rank", [0, 1])
def test_phases_lie_one_after_the_other_in_the_documented_order_and_fill_their_step(trace, rank):
    keys = [phase.key for phase in LAYOUT]
    for step, phases in step_slices_of(trace, rank):
        places = [keys.index(phase["name"]) for phase in phases]
        assert places == sorted(places)
        begins = [step["ts"], *map(end_of, phases)]
        for phase, began in zip(phases, begins[:-1], strict=True):
            assert phase["ts"] == pytest.approx(began, abs=1e-3)
        assert begins[-1] == pytest.approx(end_of(step), abs=ROUNDING_US)


def test_steps_that_were_rolled_up_are_marked_and_every_step_is_there_once(trace):
    """Rank 0's rows were all kept until rank 1, which was written later, could be joined with them."""
    for rank, is_rolled in ((0, False), (1, True)):
        steps = [
            event["args"] | {"cat": event["cat"], "name": event["name"]} for event, _ in step_slices_of(trace, rank)
        ]
        rolled = [step for step in steps if "first_step" in step]
        kept = [step["step"] for step in steps if "step" in step]

        assert bool(rolled) == is_rolled
        for step in rolled:
            assert step["cat"] == "rolled_up"
            assert step["rows"] > 1
            assert f"{step['rows']} rolled up" in step["name"]
        seen = set(kept).union(*(range(step["first_step"], step["last_step"] + 1) for step in rolled))
        assert len(kept) == len(set(kept))
        assert {1, 3_000} <= set(kept)
        assert seen == set(range(1, 3_001))


def test_the_phases_of_a_kept_step_take_what_its_row_says(trace, long_run):
    with HistoryReader(long_run / "telemetry.sqlite") as reader:
        columns = reader.columns("step_time")
    row = next(i for i, step in enumerate(columns["step"]) if step == 3_000 and columns["rank"][i] == 1)
    phases = next(phases for step, phases in step_slices_of(trace, 1) if step["args"].get("step") == 3_000)
    shown = {phase["name"]: phase["dur"] for phase in phases}

    for name in ("forward", "backward", "optimizer"):
        assert shown[name] == pytest.approx(columns[f"{name}_ns"][row] / 1_000, abs=ROUNDING_US)


def test_a_rolled_up_phase_tells_the_mean_of_its_steps(trace):
    phases = next(phases for step, phases in step_slices_of(trace, 1) if step["cat"] == "rolled_up")
    forward = next(phase for phase in phases if phase["name"] == "forward")

    assert forward["args"]["mean_ns"] == pytest.approx(4e6, rel=0.05)


def test_memory_is_counted_by_rank_and_the_host_apart(trace):
    counters = defaultdict(set)
    for event in trace["traceEvents"]:
        if event["ph"] == "C":
            counters[event["name"], event["pid"]] |= set(event["args"])

    assert "rss_bytes" in counters["process_memory", 1] & counters["process_memory", 2]
    assert "peak_allocated_bytes" in counters["step_memory 0", 1]
    assert "peak_allocated_bytes" in counters["step_memory 1", 2]
    assert {"host_cpu_percent", "host_memory_bytes"} <= counters["system", 2_000_000]
    assert not any("_ns" in name for names in counters.values() for name in names)


def test_counters_of_steps_lie_within_the_run(trace):
    end = max(event["ts"] + event["dur"] for events in slices_by_track(trace).values() for event in events)
    times = [event["ts"] for event in trace["traceEvents"] if event["ph"] == "C" and event["name"] == "step_memory 0"]

    assert min(times) > 0
    assert max(times) <= end
    assert len(set(times)) > 500


def test_the_trace_says_whose_it_is(trace, long_run):
    summary = load_summary(long_run)

    assert trace["otherData"]["verdict"] == summary.primary_diagnosis.label
    assert trace["otherData"]["name"] == "a <script> name"


def test_a_restarted_rank_has_a_track_for_each_start(tmp_path):
    folder = make_run_folder(tmp_path / "runs", steps=60, restart_after=30)
    found = export(folder, tmp_path)
    names = [event["args"]["name"] for event in found["traceEvents"] if event["name"] == "thread_name"]

    assert names == ["rank 0 steps", "rank 0 steps, start 2"]


def test_a_run_without_rows_gives_a_trace_without_slices(tmp_path):
    folder = make_run_folder(tmp_path / "runs", steps=0, startup_ms=0.0, teardown_ms=0.0, status=None)

    assert not slices_by_track(export(folder, tmp_path))


def test_what_is_there_is_not_overwritten(tmp_path):
    folder = make_run_folder(tmp_path / "runs", steps=3)
    (tmp_path / "mine.json").write_text("mine")
    result = CliRunner().invoke(main, ["export", str(folder), "--output", str(tmp_path / "mine.json")])

    assert result.exit_code == 2
    assert "mine.json exists already, and is left as it is; name another --output" in result.stderr
    assert (tmp_path / "mine.json").read_text() == "mine"


def test_without_an_output_it_lies_where_the_command_runs_under_the_runs_name(tmp_path, monkeypatch):
    folder = make_run_folder(tmp_path / "runs", steps=3)
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(main, ["export", str(folder)]).stdout

    assert (tmp_path / f"{folder.name}.trace.json").is_file()
    assert "https://ui.perfetto.dev" in said


def test_an_export_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    folder = make_run_folder(tmp_path / "runs", steps=3)
    monkeypatch.setattr("traceml_core.reporting.export.perfetto.write_trace_file", fail)
    result = CliRunner().invoke(main, ["export", str(folder), "--output", str(tmp_path / "out.json")])

    assert result.exit_code == 2
    assert "cannot be written (No space left on device)" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
