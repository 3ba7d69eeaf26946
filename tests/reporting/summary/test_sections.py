"""Every registered section keeps the contract, and a new one is a spec in the tuple."""

from __future__ import annotations

import msgspec
import pytest
from run_factory import make_run_folder
from summary_factory import make_run

from traceml_core.diagnostics.judgement import Diagnosis, normal_issue
from traceml_core.diagnostics.run_shape import RunShape
from traceml_core.reporting import final
from traceml_core.reporting.card import render_card
from traceml_core.reporting.final import SECTIONS, build_summary
from traceml_core.reporting.section_parts import section_of
from traceml_core.reporting.section_spec import BuiltSection, CardLine, SectionSpec
from traceml_core.reporting.summary import decode_summary, encode_summary
from traceml_core.reporting.tables import render_tables


class NoTables:
    def reduced(self, table: str) -> None:
        return None

    def joined_steps(self) -> None:
        return None


each_section = pytest.mark.parametrize("spec", SECTIONS, ids=lambda spec: spec.name)


def test_the_sections_come_in_the_order_of_the_design():
    assert [spec.name for spec in SECTIONS] == ["step_time", "step_memory", "process", "system"]


@each_section
def test_a_section_lives_in_the_folder_of_its_name(spec):
    package = f"traceml_core.reporting.sections.{spec.name}"

    assert [function.__module__ for function in (spec.load, spec.build, spec.card_lines, spec.table_lines)] == [
        f"{package}.loader", f"{package}.builder", f"{package}.formatter", f"{package}.formatter",
    ]  # fmt: skip


@each_section
@pytest.mark.parametrize("live", [True, False])
def test_a_section_without_any_data_says_so_and_draws_nothing(spec, live):
    section = spec.build(spec.load(NoTables(), RunShape()), live).section

    assert section.diagnosis.kind in ("NO_DATA", "NO_GPU")
    assert section.diagnosis.section == spec.name
    assert section.diagnosis.action
    assert (section.issues, section.metrics, section.ranks) == ([], {}, [])
    assert spec.card_lines(section, make_run(samples_per_s=None)) == []
    assert spec.table_lines(section) == []


@each_section
def test_a_section_reads_nothing_but_its_tables_and_its_live_form_has_the_same_metrics(spec, tmp_path):
    folder = make_run_folder(tmp_path, steps=300, device="cuda", gpu_peak_bytes=lambda step: 2**30)
    live, summary = build_summary(folder, live=True), build_summary(folder)

    assert set(live.sections[spec.name].metrics) == set(summary.sections[spec.name].metrics) != set()
    assert spec.table_lines(summary.sections[spec.name])[0].split()[:4] == ["mean", "median", "p95", "max"]
    assert spec.card_lines(summary.sections[spec.name], summary.run)


def test_a_new_section_is_built_judged_and_shown_by_being_in_the_tuple(tmp_path, monkeypatch):
    class ToyInputs(msgspec.Struct):
        rows: int

    def build(inputs, live):
        diagnosis = Diagnosis(normal_issue("toy", f"{inputs.rows} rows were counted."))
        return BuiltSection(section_of(diagnosis, {}, ()))

    toy = SectionSpec(
        name="toy",
        load=lambda tables, run: ToyInputs(tables.reduced("step_time").size),
        build=build,
        card_lines=lambda section, run: [CardLine("Toy", "counted")],
        table_lines=lambda section: ["a table of its own"],
    )
    monkeypatch.setattr(final, "SECTIONS", (*SECTIONS, toy))
    summary = build_summary(make_run_folder(tmp_path, steps=20))

    assert summary.sections["toy"].diagnosis.summary == "22 rows were counted."
    assert decode_summary(encode_summary(summary)) == summary
    assert " Toy      counted" in render_card(summary).splitlines()
    assert "a table of its own" in render_tables(summary)
