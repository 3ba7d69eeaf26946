"""The card: what a person must be able to read from it, at any width, with and without a terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from summary_factory import make_error, make_issue, make_stat, make_summary

from traceml_core.core.phases import Phase
from traceml_core.diagnostics.model import Risk
from traceml_core.reporting.card import render_card
from traceml_core.reporting.summary import BudgetPart, Hardware

ANSI = re.compile(r"\x1b\[[0-9;]*m")
FOLDER = "traceml_runs/20260101T120000Z-train-digits-ab12"


def plain(summary, **options):
    return render_card(summary, folder=FOLDER, **options)


def row_of(card, title):
    return next(line for line in card.splitlines() if line.startswith(f" {title}"))


def test_the_verdict_says_what_is_true_what_to_do_and_what_it_would_gain():
    card = plain(make_summary())

    assert "[INPUT BOUND]  critical" in card
    assert "Training waits for data: 62% of each step." in card
    assert "Raise num_workers" in row_of(card, "Next")
    assert row_of(card, "Gain").endswith("up to 61% of the time after warm-up: 2.6x as fast at best")


def test_the_head_names_the_place_and_the_ranks_as_far_as_they_are_known():
    def head(**fields):
        return plain(make_summary(world_size=8, **fields)).splitlines()[0]

    assert " lightning on cpu, 8 ranks " in head(framework="lightning", device="cpu")
    assert "  8 ranks " in head(framework="manual", device=None)  # nobody told what trains


def test_the_next_step_is_never_cut():
    action = "Set this. " * 30 + "And then the end."

    assert "And then the end." in " ".join(plain(make_summary(primary=make_issue(action=action))).split())


def test_phases_are_shown_by_their_names_for_people_the_largest_first():
    card = plain(make_summary())
    rows = [line for line in card.splitlines() if "#" in line]

    assert [row.split("#")[0].strip() for row in rows] == [
        "waiting for data", "forward", "backward", "optimizer", "startup", "validation", "the rest", "unattributed",
    ]  # fmt: skip
    assert rows[0].split()[-3:] == ["61%", "25.1", "s"]
    assert "gradient sync" not in card


def test_bars_are_as_long_as_their_shares():
    lengths = [line.count("#") for line in plain(make_summary()).splitlines() if "#" in line]

    assert lengths[0] == pytest.approx(0.61 / 0.14 * lengths[1], abs=4)
    assert min(lengths) == 1


def test_time_that_the_rows_do_not_account_for_is_admitted():
    assert "not recorded" in plain(make_summary(coverage_share=0.97))
    assert "not recorded" not in plain(make_summary(coverage_share=0.998))


def test_a_run_whose_time_is_nearly_all_unattributed_says_so():
    shares = {Phase.STARTUP: 0.003, Phase.TEARDOWN: 0.001, Phase.FORWARD: None, Phase.UNATTRIBUTED: 0.99}
    card = plain(make_summary(shares=shares))
    assert "Where the time went" in card
    assert "99%" in row_of(card, "unattributed") and "<1%" in row_of(card, "the rest")
    assert "Not measured here, so unattributed: forward." in card


def test_a_run_whose_time_is_not_known_has_no_account_of_it():
    assert "Where the time went" not in plain(make_summary(shares=dict.fromkeys(Phase)))


def test_a_phase_that_cannot_be_measured_is_named_and_not_shown_as_zero():
    card = plain(make_summary(shares={Phase.FORWARD: 0.9, Phase.OPTIMIZER: None, Phase.UNATTRIBUTED: 0.1}))

    assert "Not measured here, so unattributed: optimizer." in card


def test_step_time_speed_memory_and_host_have_a_line_each():
    card = plain(make_summary(tokens_per_s=84_000.0))

    assert "24.1 ms median, 31.3 ms p95" in row_of(card, "Step")
    assert "20 of warm-up set apart" in row_of(card, "Step")
    assert "1,328 samples/s, 84,000 tokens/s" in row_of(card, "Speed")
    assert "process 1.19 GiB" in row_of(card, "Memory")
    assert "CPU 43% of 4 cores" in row_of(card, "Host")
    assert FOLDER in row_of(card, "Files")


def test_gpu_numbers_are_shown_where_there_is_a_gpu():
    summary = make_summary(device="cuda", hardware=Hardware(cpus=8.0, memory_bytes=None, gpus=["NVIDIA H100"] * 2))
    summary.sections["step_memory"].metrics["peak_allocated_bytes"] = make_stat(2**31)
    summary.sections["system"].metrics["gpu_utilization_percent"] = make_stat(38.0)
    card = plain(summary)

    assert "GPU peak 4.00 GiB" in row_of(card, "Memory")
    assert "2 x NVIDIA H100, 38% busy" in row_of(card, "GPU")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"status": "failed", "error": make_error(global_step=1057)},
            "Failed after step 57 (global step 1,057) with ValueError: shapes do not match",
        ),
        (
            {"status": "failed", "error": make_error(step=None, message=None), "steps": 0},
            "Failed before the first step was done with ValueError",
        ),
        (
            {"status": "failed", "error": make_error(step=0, global_step=0)},
            "Failed before the first step was done with ValueError: shapes do not match",
        ),
        (
            {"status": "interrupted", "error": make_error(type="KeyboardInterrupt", message="")},
            "Interrupted after step 57 with KeyboardInterrupt",
        ),
        ({"status": "interrupted"}, "Interrupted after step 400: the training process ended without a word."),
        (
            {"status": "interrupted", "framework": "ray"},
            "Interrupted after step 400: the actor that records it ended without a word;",
        ),
        ({"status": "running"}, "Still running, after 400 steps."),
    ],
)
def test_a_run_that_did_not_complete_says_so_first(fields, sentence):
    card = plain(make_summary(**fields))

    assert sentence in card.splitlines()[1]
    assert sentence.split(" with ")[0] in render_card(make_summary(**fields), style="line")


def test_at_most_three_other_issues_are_shown_the_worst_first_in_one_line_each():
    also = tuple(
        make_issue(kind, severity=severity, section=section, impact_share=impact, summary="So it is. " * 30)
        for kind, severity, section, impact in (
            ("LOADER_RESTART", "warning", "step_time", 0.05),
            ("COMPUTE_BOUND", "info", "step_time", None),
            ("LOGGING_HEAVY", "warning", "step_time", 0.1),
            ("HIGH_HOST_CPU", "warning", "system", None),
            ("HOST_MEMORY_CREEP", "critical", "process", None),
        )
    )
    lines = plain(make_summary(also=also)).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(" Also"))

    assert [line[10:].split(":")[0] for line in lines[start : start + 3]] == [
        "Host memory creep", "Logging heavy", "Loader restart",
    ]  # fmt: skip
    assert lines[start + 3].startswith(" Files")


def test_memory_on_its_way_to_its_limit_is_told_in_steps():
    risk = Risk(limit_bytes=2**34, steps_left=4200)

    row = row_of(plain(make_summary(primary=make_issue(risk=risk))), "Risk")
    assert row.endswith("out of memory, at 16.0 GiB, in about 4,200 steps")


def test_lost_rows_and_failures_of_traceml_itself_are_admitted():
    card = plain(make_summary(telemetry={"rows_lost": 12, "failures": {"system": 2}}))

    assert "12 of 1,246 rows were lost" in card
    assert "system 2x" in card


def test_what_was_refused_redone_or_left_open_is_said_in_words_of_its_own():
    failures = {"refused.no handshake": 500, "refused.wrong key": 1, "ingest": 2}
    telemetry = {"failures": failures, "redone_steps": 20, "unended_ranks": list(range(1, 12))}
    card = " ".join(render_card(make_summary(telemetry=telemetry)).split())
    assert "20 steps were done again after a restart" in card
    assert "Each of ranks 1, 2, 3, 4, 5, 6, 7, 8 and 3 more did not say how it ended" in card
    assert "Refused at the run's port: no handshake 500" in card and "wrong key 1" in card
    assert "TraceML itself failed at ingest 2x" in card


def test_a_restart_that_repeated_nothing_is_said_too():
    card = " ".join(render_card(make_summary(world_size=2, telemetry={"incarnations": 3})).split())
    assert "Ranks were started anew in this run (3 starts, 2 ranks); no step was done twice" in card
    assert "started anew" not in render_card(make_summary(world_size=2, telemetry={"incarnations": 2}))


def test_a_phase_that_a_later_version_knows_is_shown_by_its_key():
    summary = make_summary()
    part = BudgetPart(phase="weight_sync_between_pods", seconds=20.0, share=0.48)
    summary.time_budget.parts.append(part)

    assert "weight sync betw #" in plain(summary)


def test_without_a_terminal_there_is_no_colour_and_nothing_but_ascii():
    card = plain(make_summary(status="failed", error=make_error(), device="cuda"))

    assert card.isascii()
    assert "\x1b" not in card


def test_colour_and_symbols_go_together_unless_told_otherwise():
    assert "█" in plain(make_summary(), color=True)
    assert ANSI.search(plain(make_summary(), color=True))
    assert "█" in plain(make_summary(), color=False, unicode=True)
    assert plain(make_summary(), color=True, unicode=False).replace("\x1b", "").isascii()


def test_what_a_user_wrote_is_text_and_never_markup_or_control():
    card = plain(
        make_summary(
            name="[bold]x\x1b[31mred\x07",
            status="failed",
            error=make_error(message="[red]line one\nline two\r\x1b[2Jgone ‮right to left"),
        ),
        color=True,
    )
    stripped = ANSI.sub("", card)

    assert "[bold]x [31mred" in stripped
    assert "[red]line one line two" in stripped
    assert "\x1b" not in stripped and "\x07" not in stripped and "‮" not in stripped


def test_an_ordinary_card_is_one_screen():
    assert len(plain(make_summary()).splitlines()) <= 24


def test_the_line_style_is_one_line_and_off_is_nothing():
    line = render_card(make_summary(), style="line", folder=FOLDER)

    assert line == f"TraceML: INPUT BOUND - Training waits for data: 62% of each step. - {FOLDER}\n"
    assert render_card(make_summary(), style="off") == ""


def test_a_fact_that_cannot_be_drawn_leaves_the_rest_of_the_card():
    summary = make_summary()
    summary.sections["process"].metrics["rss_bytes"] = None

    assert "CPU 43%" in plain(summary)


@given(
    columns=st.integers(min_value=1, max_value=300),
    color=st.booleans(),
    name=st.text(max_size=80),
    message=st.text(max_size=300),
    said=st.text(alphabet=st.characters(codec="utf-8"), max_size=300),
    step=st.none() | st.integers(0, 10**9),
)
def test_no_line_is_wider_than_the_terminal_whatever_the_user_wrote(columns, color, name, message, said, step):
    summary = make_summary(
        primary=make_issue(summary=said, action=said),
        name=name,
        status="failed",
        error=make_error(message=message, step=step),
    )
    card = ANSI.sub("", render_card(summary, columns=columns, color=color))

    assert card.endswith("\n")
    assert max(cell_len(line) for line in card.splitlines()) <= max(40, min(columns, 100))


def test_the_longest_time_has_a_space_before_it_and_fits_the_line():
    budget = plain(make_summary(duration_s=1_678 / 0.61)).partition("Where the time went")[2]

    assert "61% 27 min 58 s" in budget
    assert max(map(len, budget.splitlines())) <= 80
