"""The report as a page: it holds what the summary says, as text, and needs nothing but itself."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import msgspec
import pytest
from click.testing import CliRunner
from run_factory import GIB, HEALTHY_MS, make_run_folder
from summary_factory import make_issue, make_summary

from traceml_core.cli import main
from traceml_core.core.phases import Phase
from traceml_core.diagnostics.model import Risk
from traceml_core.reporting.final import build_summary
from traceml_core.reporting.html import page
from traceml_core.reporting.html.page import asset, plotly_script, render_report
from traceml_core.reporting.summary import CoursePoint, HistogramBin, RankSummary, Section, SeriesBlock, encode_summary

HOSTILE = "</script><script>alert(1)</script><b>&\"'"


class Reading(HTMLParser):
    """The elements of a page, its text outside of scripts and styles, and its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.said += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    slow_rank = {2: {**HEALTHY_MS, Phase.BACKWARD: 9.0}}
    return make_run_folder(
        tmp_path_factory.mktemp("runs"),
        steps=300,
        ranks=4,
        rank_phases_ms=slow_rank,
        warmup_steps=6,
        gpu_peak_bytes=lambda step: 30 * GIB,
    )


@pytest.fixture(scope="module")
def summary(folder):
    return build_summary(folder)


@pytest.fixture(scope="module")
def reading(summary):
    return Reading(render_report(summary))


def figures_of(reading):
    return json.loads(reading.scripts[0])


def test_the_verdict_and_the_next_step_stand_before_everything_else(reading, summary):
    issue = summary.primary_diagnosis
    said = reading.said

    places = [said.index(text) for text in (issue.label, issue.summary, issue.action, "Where the time went", "Steps")]
    assert places == sorted(places)


def test_every_chart_has_its_numbers_as_a_table_and_a_description(reading):
    charts = [one for one in reading.all("div") if one.get("class") == "plot"]
    captions = [one for one in reading.all("details") if (one.get("id") or "").startswith("numbers-")]

    assert {"steps", "distribution", "ranks", "process-memory", "device-memory", "load", "host-memory"} == {
        one["data-figure"] for one in charts
    }
    assert len(captions) == len(charts)
    assert all(one["role"] == "img" and one["aria-label"] for one in charts)
    assert set(figures_of(reading)) == {one["data-figure"] for one in charts}


def test_the_timeline_stacks_the_phases_of_the_series_and_marks_warm_up(reading, summary):
    figure = figures_of(reading)["steps"]
    series = summary.sections["step_time"].series
    forward = next(trace for trace in figure["data"] if trace["name"] == "forward")

    assert forward["stackgroup"] == "phases"
    assert forward["y"][:-1] == [block.phases_ms["forward"] for block in series]
    warm_up = [block for block in series if block.warmup]
    assert [(one["x0"], one["x1"]) for one in figure["layout"]["shapes"]] == [
        (warm_up[0].first_step, warm_up[-1].first_step + warm_up[-1].count)
    ]


def test_from_three_ranks_on_there_is_a_heat_map_and_with_two_a_table(reading, tmp_path):
    two = Reading(render_report(build_summary(make_run_folder(tmp_path, steps=60, ranks=2))))

    assert figures_of(reading)["ranks"]["data"][0]["type"] == "heatmap"
    assert "ranks" not in figures_of(two)
    assert "Mean time of a step, by rank and phase" in two.said


def test_names_and_errors_are_text_wherever_they_stand(tmp_path):
    summary = make_summary(
        name=HOSTILE,
        status="failed",
        error={"type": HOSTILE, "message": HOSTILE, "step": 3, "global_step": 3},
        framework=HOSTILE,
        labels={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE},
        primary=make_issue(kind=HOSTILE, summary=HOSTILE, action=HOSTILE, evidence={HOSTILE: {HOSTILE: [HOSTILE]}}),
        telemetry={"failures": {HOSTILE: 2}},
    )
    phases = {HOSTILE: 1.0, "forward": 2.0}
    block = SeriesBlock(first_step=1, count=5, warmup=False, step_interval_ms=3.0, phases_ms=phases)
    hostile = msgspec.structs.replace(summary.sections["step_time"], series=[block])
    summary = decoded(msgspec.structs.replace(summary, sections={**summary.sections, "step_time": hostile}))
    reading = Reading(render_report(summary))

    assert len(reading.all("script")) == 3
    assert not reading.all("b")
    assert HOSTILE in reading.said
    assert "<" not in reading.scripts[0]


def decoded(summary):
    return msgspec.json.decode(encode_summary(summary), type=type(summary))


def test_the_page_names_no_other_place_and_its_policy_allows_none(summary):
    text = render_report(summary)
    reading = Reading(text)
    policy = next(one["content"] for one in reading.all("meta") if one.get("http-equiv"))

    assert not [one for _, one in reading.elements if one.get("src")]
    assert {one["href"] for _, one in reading.elements if one.get("href")} == {"#verdict"}
    assert not reading.all("link")
    assert "url(" not in asset("report.css")
    assert "@import" not in asset("report.css")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "'unsafe-eval'" not in policy


def test_headings_go_down_by_one_and_every_table_has_a_caption(reading):
    levels = [int(tag[1]) for tag, _ in reading.elements if re.fullmatch("h[1-6]", tag)]

    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    assert len(reading.all("caption")) == len(reading.all("table"))
    assert reading.all("main")
    assert reading.all("html")[0]["lang"] == "en"


def test_the_longest_series_and_a_thousand_ranks_stay_under_six_megabytes():
    summary = make_summary(world_size=1024)
    phases = {phase.key: 12.345678901234567 for phase in Phase}
    blocks = [
        SeriesBlock(first_step=1 + 1000 * i, count=1000, warmup=i < 3, step_interval_ms=123.45678901, phases_ms=phases)
        for i in range(1000)
    ]
    step_time = msgspec.structs.replace(
        summary.sections["step_time"],
        series=blocks,
        distribution=[HistogramBin(from_ms=i, to_ms=i + 1, count=10**6) for i in range(60)],
        ranks=[RankSummary(rank=i, metrics={f"{key}_ms": 12.3456789 for key in phases}) for i in range(1024)],
    )
    course = [
        CoursePoint(at_s=i * 60.0, step=i * 4000.0, metrics={"rss_bytes": 1e9 + i, "workers_rss_bytes": 2e9 + i})
        for i in range(240)
    ]
    process = msgspec.structs.replace(summary.sections["process"], course=course)
    sections = {**summary.sections, "step_time": step_time, "process": process}

    assert len(render_report(msgspec.structs.replace(summary, sections=sections)).encode()) < 6_000_000


@pytest.mark.parametrize(
    "summary",
    [
        make_summary(steps=0, shares={}, device=None, samples_per_s=None, batch_size=None, loader=None),
        make_summary(status="running", primary=make_issue(risk=Risk(limit_bytes=GIB, steps_left=7), ranks=(0, 1, 2))),
        msgspec.structs.replace(make_summary(), sections={}),
        msgspec.structs.replace(
            make_summary(),
            sections={
                "later": Section(diagnosis=make_issue("NEW_KIND", section="later"), issues=[], metrics={}, ranks=[])
            },
        ),
    ],
    ids=["no steps", "running", "no sections", "a section of a later version"],
)
def test_a_summary_that_lacks_things_is_shown_without_them(summary):
    reading = Reading(render_report(summary))

    assert summary.primary_diagnosis.label in reading.said


def test_a_part_that_cannot_be_drawn_is_left_out_and_the_others_are_shown(summary, monkeypatch):
    broken = msgspec.structs.replace(summary.sections["process"], course=[None])
    sections = {**summary.sections, "process": broken}
    reading = Reading(render_report(msgspec.structs.replace(summary, sections=sections)))

    assert {"steps", "load"} <= set(figures_of(reading))
    assert "process-memory" not in figures_of(reading)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_page_is_written_beside_the_summary_or_where_it_is_asked_for(folder, tmp_path):
    beside = run("report", folder, "--format", "html")
    named = run("report", folder, "--format", "html", "--output", tmp_path / "page.html")

    assert beside.exit_code == named.exit_code == 0
    assert beside.stdout.startswith(str(folder / "final_summary.html"))
    assert (folder / "final_summary.html").read_text() == (tmp_path / "page.html").read_text()
    assert run("report", folder, "--format", "html").exit_code == 0


def test_a_page_of_somebody_else_is_left_alone(tmp_path):
    summary = tmp_path / "baseline.json"
    summary.write_bytes(encode_summary(make_summary()))
    (tmp_path / "baseline.html").write_text("mine")
    result = run("report", summary, "--format", "html")

    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "--output" in result.stderr
    assert (tmp_path / "baseline.html").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b'{"schema_version": "2.0"}'])
def test_a_damaged_summary_is_one_line_and_no_page(tmp_path, content):
    (tmp_path / "final_summary.json").write_bytes(content)
    result = run("report", tmp_path, "--format", "html")

    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "final_summary.html").exists()


def test_where_the_extra_is_missing_one_line_says_how_to_get_it(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(page, "PAGE", ("jinja2", "no_such_module"))
    result = run("report", folder, "--format", "html", "--output", tmp_path / "page.html")

    assert result.exit_code == 2
    assert result.stderr == (
        "traceml: no-such-module is not installed here; pip install 'traceml-callbacks[dashboard]'\n"
    )
    assert not (tmp_path / "page.html").exists()


def test_plotly_itself_cannot_end_the_element_that_holds_it():
    assert "</script" not in page._closed(plotly_script()).lower()
