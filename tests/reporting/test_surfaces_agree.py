"""Every surface shows the same verdict and figures as `final_summary.json`.

A new surface is one line in SURFACES: how it is made of a run folder, and which of the FIGURES it shows. A surface that
gives a dict shows the numbers themselves, one that gives text shows them as `core/units` writes them.
"""

from __future__ import annotations

import csv
import html
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from pages import Visitor
from run_factory import RunPlan, make_run_folder
from waiting import LIMIT_S

from traceml_core import load_run
from traceml_core.cli import main
from traceml_core.core.phases import Phase
from traceml_core.core.units import count, milliseconds, rate, seconds
from traceml_core.renderers.compact import compact_line
from traceml_core.renderers.screen import Freshness, screen_lines
from traceml_core.reporting.card_layout import look_for
from traceml_core.reporting.stored_summary import load_summary
from traceml_core.reporting.summary import FinalSummary
from traceml_core.telemetry.messages import RunError
from traceml_core.transport.listener import open_listener


class Figure(msgspec.Struct, frozen=True):
    """One thing that a summary says: itself, and as people read it."""

    exact: Callable[[FinalSummary], Any]
    text: Callable[[Any], str] = str


def step_time(field: str) -> Callable[[FinalSummary], float]:
    return lambda summary: getattr(summary.sections["step_time"].metrics["step_time_ms"], field)


FIGURES: Mapping[str, Figure] = {
    "verdict": Figure(lambda summary: summary.primary_diagnosis.label),
    "kind": Figure(lambda summary: summary.primary_diagnosis.kind),
    "severity": Figure(lambda summary: summary.primary_diagnosis.severity),
    "why": Figure(lambda summary: summary.primary_diagnosis.summary),
    "what to do": Figure(lambda summary: summary.primary_diagnosis.action),
    "name": Figure(lambda summary: summary.run.name),
    "status": Figure(lambda summary: summary.run.status),
    "steps": Figure(lambda summary: summary.run.steps, lambda value: f"{count(value)} steps"),
    "duration_s": Figure(lambda summary: summary.run.duration_s, seconds),
    "samples_per_s": Figure(lambda summary: summary.run.samples_per_s, lambda value: f"{rate(value)} samples/s"),
    "step median": Figure(step_time("median"), lambda value: f"{milliseconds(value)} median"),
    "step p95": Figure(step_time("p95"), lambda value: f"{milliseconds(value)} p95"),
}


class Surface(msgspec.Struct, frozen=True):
    """One way to look at a run, and what of FIGURES it shows."""

    name: str
    shown: Callable[[Path, Path], str | Mapping[str, Any]]
    """Made of the run folder; the other folder is empty and its own."""
    figures: tuple[str, ...]


def command(*arguments: str) -> Callable[[Path, Path], str]:
    """What a command that takes RUN prints."""
    return lambda folder, _: invoke(*arguments, folder)


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def report_json(folder: Path, _: Path) -> Mapping[str, Any]:
    shown = json.loads(invoke("report", folder, "--format", "json"))
    step = shown["sections"]["step_time"]["metrics"]["step_time_ms"]
    issue = shown["primary_diagnosis"]
    return {
        **shown["run"],
        **issue,
        "why": issue["summary"],
        "what to do": issue["action"],
        "step median": step["median"],
        "step p95": step["p95"],
    }


def list_text(folder: Path, _: Path) -> str:
    return invoke("list", "--runs-dir", folder.parent)


def list_json(folder: Path, _: Path) -> Mapping[str, Any]:
    return json.loads(invoke("list", "--runs-dir", folder.parent, "--format", "json"))[0]


def trace(folder: Path, work: Path) -> Mapping[str, Any]:
    invoke("export", folder, "--output", work / "trace.json")
    about = json.loads((work / "trace.json").read_text())["otherData"]
    return {**about, "why": about["summary"]}


def csv_tables(folder: Path, work: Path) -> Mapping[str, Any]:
    invoke("export", folder, "--format", "csv", "--output", work / "tables")
    issue = rows_of(work / "tables" / "issues.csv")[0]
    metrics = {row["metric"]: row for row in rows_of(work / "tables" / "metrics.csv")}
    step = metrics["step_time_ms"]
    return {
        "kind": issue["kind"],
        "severity": issue["severity"],
        "why": issue["summary"],
        "what to do": issue["action"],
        "step median": float(step["median"]),
        "step p95": float(step["p95"]),
    }


def html_page(folder: Path, work: Path) -> str:
    pytest.importorskip("plotly")
    invoke("report", folder, "--format", "html", "--output", work / "report.html")
    return (work / "report.html").read_text()


def dashboard(path: Callable[[Path], str]) -> Callable[[Path, Path], str]:
    """A page of the dashboard, asked for over a real socket."""

    def shown(folder: Path, _: Path) -> str:
        pytest.importorskip("sse_starlette")
        from traceml_core.dashboard.server import DashboardServer, address_of, new_token

        listener, token = open_listener(), new_token()
        server = DashboardServer(folder.parent, listener, token)
        server.start()
        try:
            return Visitor(address_of(listener, token)).get(path(folder)).text
        finally:
            server.end()
            assert server.wait(LIMIT_S)

    return shown


def live_screen(folder: Path, _: Path) -> str:
    look = look_for(120, color=False, symbols=None)
    return "\n".join(line.plain for line in screen_lines(load_summary(folder), Freshness(0.0), look, 60))


def compared(form: str) -> Callable[[Path, Path], str]:
    """The run set against itself."""
    return lambda folder, _: invoke("compare", folder, folder, "--format", form)


def compared_json(folder: Path, _: Path) -> Mapping[str, Any]:
    return json.loads(invoke("compare", folder, folder, "--format", "json"))["b"][0]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


CARD = ("verdict", "why", "what to do", "name", "steps", "duration_s", "samples_per_s", "step median", "step p95")
LINE = ("verdict", "steps", "duration_s", "samples_per_s")
SURFACES = (
    Surface("card", command("report"), CARD),
    Surface("final_summary.txt", lambda folder, _: (folder / "final_summary.txt").read_text(), CARD),
    Surface("report --format json", report_json, tuple(name for name in FIGURES if name != "verdict")),
    Surface("list", list_text, ("verdict", "status", "duration_s")),
    Surface("list --format json", list_json, ("verdict", "kind", "severity", "name", "status", "steps", "duration_s")),
    Surface("load_run", lambda folder, _: repr(load_run(folder)), ("verdict", "name", "status", "steps", "duration_s")),
    Surface("load_run in a notebook", lambda folder, _: load_run(folder)._repr_html_(), (*CARD, "status")),
    Surface("export --format perfetto", trace, ("verdict", "why", "name", "status", "steps")),
    Surface("export --format csv", csv_tables, ("kind", "severity", "why", "what to do", "step median", "step p95")),
    Surface("report --format html", html_page, (*CARD, "severity", "status")),
    Surface("dashboard: the run", dashboard(lambda folder: f"/runs/{folder.name}"), (*CARD, "severity", "status")),
    Surface("dashboard: the list", dashboard(lambda _: "/"), ("verdict", "name", "status", "duration_s")),
    Surface("live: its end", command("live"), CARD),
    Surface("live: its screen", live_screen, CARD),
    Surface("a line in the training terminal", lambda folder, _: compact_line(load_summary(folder)), LINE),
    Surface("compare", compared("text"), ("name", "steps")),
    Surface("compare --format markdown", compared("markdown"), ("name", "steps")),
    Surface("compare --format html", compared("html"), ("name", "steps")),
    Surface("compare --format json", compared_json, ("name", "status", "steps")),
)

RUNS = {
    "healthy": RunPlan(steps=300),
    "waits for data": RunPlan(steps=1_200, phases_ms={Phase.INPUT_WAIT: 30.0, Phase.FORWARD: 4.0}),
    "failed": RunPlan(steps=80, status="failed", error=RunError("ValueError")),
    "late rank": RunPlan(steps=200, ranks=2, rank_phases_ms={1: {Phase.FORWARD: 30.0}, 0: {Phase.GRAD_SYNC: 26.0}}),
}


@pytest.fixture(scope="module", params=RUNS, ids=lambda name: name)
def folder(request, tmp_path_factory):
    made = make_run_folder(tmp_path_factory.mktemp("runs"), RUNS[request.param])
    load_summary(made)
    return made


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_a_surface_shows_what_the_summary_says(surface, folder, tmp_path):
    summary = msgspec.json.decode((folder / "final_summary.json").read_bytes(), type=FinalSummary)
    shown = surface.shown(folder, tmp_path)
    for name in surface.figures:
        figure = FIGURES[name]
        exact = figure.exact(summary)
        if isinstance(shown, Mapping):
            assert shown[name] == exact, name
        else:
            assert _plain(figure.text(exact)) in _plain(shown), name


def _plain(text: str) -> str:
    """Whatever the lines, the case and the escaping."""
    return " ".join(html.unescape(text).split()).lower()
