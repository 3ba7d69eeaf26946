"""The live view as lines: what fits is shown, first things first, and a broken renderer costs the others nothing."""

from __future__ import annotations

import msgspec
import pytest
from run_factory import make_run_folder
from summary_factory import make_issue, make_stat, make_summary

from traceml_core.renderers import registry, screen
from traceml_core.renderers.curve import curve
from traceml_core.renderers.screen import Freshness, screen_lines, waiting_lines
from traceml_core.renderers.section_renderer import SectionRenderer
from traceml_core.reporting.card_layout import look_for
from traceml_core.reporting.final import SECTIONS, build_summary
from traceml_core.reporting.summary import FinalSummary

PLAIN = look_for(80, color=False, symbols=None)
FRESH = Freshness(0.5)


def shown(summary: FinalSummary, lines: int = 24, fresh: Freshness = FRESH) -> list[str]:
    return [line.plain for line in screen_lines(summary, fresh, PLAIN, lines)]


def crowded() -> FinalSummary:
    """Eight ranks on GPUs with much to say."""
    others = tuple(make_issue(kind, section="system", summary=50 * "word ") for kind in ("HIGH_HOST_CPU", "OTHER"))
    summary = make_summary(
        primary=make_issue(summary=40 * "words ", action=40 * "do this "),
        also=others,
        status="running",
        world_size=8,
        device="cuda",
        coverage_share=0.9,
        telemetry={"rows_lost": 7, "failures": {"Sender": 3}},
    )
    tree = msgspec.to_builtins(summary)
    means = {"step_time_ms": 24.0, "forward_ms": 3.0}
    tree["sections"]["step_time"]["ranks"] = [{"rank": rank, "metrics": means} for rank in range(8)]
    tree["sections"]["step_time"]["metrics"]["forward_ms"] |= {"worst_rank": 7, "worst_rank_mean": 5.0}
    tree["sections"]["step_memory"]["metrics"] = {"peak_allocated_bytes": msgspec.to_builtins(make_stat(3e9))}
    tree["sections"]["system"]["metrics"]["gpu_utilization_percent"] = msgspec.to_builtins(make_stat(60.0))
    return msgspec.convert(tree, FinalSummary)


@pytest.mark.parametrize("lines", [24, 30, 40, 60])
def test_every_size_shows_verdict_phases_sections_and_health_of_a_crowded_run(lines):
    screen = shown(crowded(), lines)

    assert len(screen) == lines
    assert all(len(line) <= 80 for line in screen)
    text = "\n".join(screen)
    assert text.isascii()
    health = ("Health", "7 lost")
    for words in ("[INPUT BOUND]", "Next", "waiting for data", "Step ", "Ranks", "GPU peak", "Host", *health):
        assert words in text
    assert screen[-1].startswith(" q or Ctrl-C")


def test_with_room_there_is_a_line_for_each_rank_and_without_there_is_none():
    assert not [line for line in shown(crowded(), 24) if line.split()[:1] == ["7"]]
    assert [line for line in shown(crowded(), 60) if line.split()[:3] == ["7", "24.0", "ms"]]


def test_the_last_blocks_of_steps_are_a_curve_where_there_is_room(tmp_path):
    summary = build_summary(make_run_folder(tmp_path, steps=200, status=None, owner_lives=True), live=True)
    (line,) = [line for line in shown(summary, 60) if line.startswith(" Lately")]
    assert len(set(line.split()[1])) > 2


def test_a_screen_too_small_for_all_keeps_what_comes_first_and_how_to_leave():
    screen = shown(crowded(), 10)
    assert len(screen) == 10
    assert screen[2].startswith(" [INPUT BOUND]")
    assert screen[-1].startswith(" q or Ctrl-C")


@pytest.mark.parametrize(
    ("fresh", "said"),
    [
        (Freshness(0.5), "live"),
        (Freshness(42.0), "no news for 42.0 s"),
        (Freshness(1.0, owner_is_gone=True), "its process is gone; its report is on its way"),
    ],
)
def test_the_last_line_says_how_fresh_the_numbers_are(fresh, said):
    assert shown(make_summary(status="running"), 24, fresh)[-1].rstrip().endswith(said)


def test_names_cannot_move_the_cursor():
    name = "evil\x1b[2J\nname"
    waiting = [line.plain for line in waiting_lines(name, FRESH, PLAIN, 5)]
    screen = [*shown(make_summary(status="running", name=name)), *waiting]
    assert not any("\x1b" in line or "\n" in line for line in screen)


def test_a_renderer_that_fails_costs_only_its_own_lines(monkeypatch):
    def fail(*_):
        raise RuntimeError("broken")

    broken = SectionRenderer(name="step_time", render=fail)
    monkeypatch.setattr(screen, "RENDERERS", (broken, *registry.RENDERERS[1:]))
    text = "\n".join(shown(make_summary(status="running")))
    assert "Host" in text
    assert "median" not in text


def test_every_section_has_its_renderer_in_the_order_of_the_report():
    assert [one.name for one in registry.RENDERERS] == [one.name for one in SECTIONS]


@pytest.mark.parametrize("renderer", registry.RENDERERS, ids=lambda one: one.name)
@pytest.mark.parametrize("summary", [make_summary(), crowded()], ids=["one rank", "eight ranks"])
def test_every_renderer_draws_lines_that_fit_and_bears_a_section_without_numbers(renderer, summary):
    section = summary.sections[renderer.name]
    view = renderer.render(section, summary.run, PLAIN)
    assert all(line.cell_len <= 80 for line in [*view.lines, *(line for block in view.more for line in block)])
    empty = msgspec.structs.replace(section, metrics={}, ranks=[], series=None)
    renderer.render(empty, summary.run, PLAIN)


def test_a_curve_goes_from_its_lowest_to_its_highest_value():
    assert curve([1.0, 2.0, 3.0], look_for(80, False, True)) == "▁▅█"
    assert curve([5.0, 5.0], PLAIN) == "__"
