"""The report and the dashboard in a real browser: both themes, a narrow and a wide window, and on paper."""

from __future__ import annotations

import pytest
from run_factory import GIB, HEALTHY_MS, make_run_folder
from summary_factory import make_summary
from waiting import wait_for

from traceml_core.core.atomic_files import write_atomic
from traceml_core.core.phases import Phase
from traceml_core.dashboard.server import DashboardServer, address_of, new_token
from traceml_core.reporting.html.page import render_report
from traceml_core.reporting.stored_summary import load_summary
from traceml_core.reporting.summary import encode_summary
from traceml_core.transport.listener import open_listener

CHARTS = {"steps", "distribution", "ranks", "process-memory", "device-memory", "load", "host-memory"}
WINDOWS = [(theme, width) for theme in ("light", "dark") for width in (390, 1440)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    slow_rank = {2: {**HEALTHY_MS, Phase.BACKWARD: 9.0}}
    folder = make_run_folder(
        root, steps=400, ranks=4, rank_phases_ms=slow_rank, warmup_steps=6, gpu_peak_bytes=lambda step: 30 * GIB
    )
    page = root / "report.html"
    page.write_text(render_report(load_summary(folder)))
    return root


@pytest.fixture(scope="module")
def report(root):
    return (root / "report.html").as_uri()


@pytest.fixture
def dashboard(root):
    listener, token = open_listener(), new_token()
    address = address_of(listener, token)
    server = DashboardServer(root, listener, token)
    server.start()
    yield address
    server.end()
    assert server.wait(30)


@pytest.mark.parametrize(("theme", "width"), WINDOWS)
def test_the_report_is_drawn_in_every_window_and_theme(open_page, report, theme, width):
    opened = open_page(report, theme=theme, width=width)

    assert opened.charts() == dict.fromkeys(CHARTS, True)
    assert opened.complaints == []
    assert opened.asked == [report]
    assert opened.overflow_px() <= 0


def test_charts_follow_the_theme_and_paper_is_light(open_page, report):
    opened = open_page(report, theme="light")
    axis = ".plot[data-figure=steps] .xtick text"
    light, light_page = opened.colour(axis, "fill"), opened.colour("body", "backgroundColor")
    opened.page.emulate_media(color_scheme="dark")
    wait_for(lambda: opened.colour(axis, "fill") != light)
    assert opened.colour("body", "backgroundColor") != light_page

    opened.page.emulate_media(media="print", color_scheme="dark")
    wait_for(lambda: opened.colour(axis, "fill") == light)
    assert opened.colour("body", "backgroundColor") == "rgb(255, 255, 255)"
    assert opened.complaints == []


def test_the_keyboard_reaches_the_verdict_and_every_table(open_page, report):
    opened = open_page(report)
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.className") == "skip"
    opened.page.keyboard.press("Enter")
    assert opened.page.evaluate("document.activeElement.id") == "verdict"
    opened.page.keyboard.press("Tab")
    opened.page.keyboard.press("Enter")

    assert opened.page.locator("details[open] table").count() == 1


@pytest.mark.parametrize(("theme", "width"), WINDOWS)
def test_the_dashboard_lists_runs_and_shows_one_in_every_window_and_theme(open_page, dashboard, theme, width):
    opened = open_page(dashboard, theme=theme, width=width)
    assert opened.overflow_px() <= 0
    opened.page.click(".runs a")
    opened.page.wait_for_selector(".plot .main-svg")

    assert opened.charts() == dict.fromkeys(CHARTS, True)
    assert opened.overflow_px() <= 0
    assert opened.complaints == []
    assert {url.split("/")[2] for url in opened.asked if not url.startswith("data:")} == {dashboard.split("/")[2]}
    assert "token" not in opened.page.url


def test_an_open_page_changes_in_place_and_leaves_open_what_was_open(open_page, root, dashboard):
    folder = make_run_folder(root, steps=20, name="live", status=None, owner_lives=True)
    live = folder / "live_summary.json"
    live.write_bytes(encode_summary(make_summary(status="running", steps=1)))
    opened = open_page(dashboard.replace("/?", f"/runs/{folder.name}?"))
    opened.page.wait_for_selector("#connection:text('following')")
    opened.page.click("#evidence-1 summary" if opened.page.locator("#evidence-1").count() else "details summary")
    opened.page.evaluate("window.kept = document.querySelector('details[open]').id")
    write_atomic(live, encode_summary(make_summary(status="running", steps=4321)))

    opened.page.wait_for_selector("text=Still running, after 4,321 steps.", timeout=3000)
    assert opened.page.evaluate("document.getElementById(window.kept).open")
    assert opened.complaints == []
