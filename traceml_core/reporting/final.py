"""The final report: every section of a run, its budget and its facts in one summary, written whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from traceml_core.core.atomic_files import write_atomic
from traceml_core.core.run_folder import open_run_folder, read_manifest
from traceml_core.diagnostics.judgement import no_data
from traceml_core.diagnostics.primary import primary_diagnosis
from traceml_core.diagnostics.run_shape import RunShape, run_shape_of
from traceml_core.history.reader import HistoryReader
from traceml_core.loggers.error_log import fail_open, get_error_logger
from traceml_core.reporting.read_once import TablesReadOnce
from traceml_core.reporting.run_status import status_of
from traceml_core.reporting.run_summary import StoredRun, summarise_run
from traceml_core.reporting.section_spec import BuiltSection, RunNumbers, SectionSpec
from traceml_core.reporting.sections.process import PROCESS
from traceml_core.reporting.sections.step_memory import STEP_MEMORY
from traceml_core.reporting.sections.step_time import STEP_TIME
from traceml_core.reporting.sections.system import SYSTEM
from traceml_core.reporting.summary import FinalSummary, Hardware, Section, TimeBudget, encode_summary
from traceml_core.reporting.telemetry_summary import summarise_telemetry
from traceml_core.telemetry.messages import RunStatus

# The order in which issues that weigh the same come first, and in which facts stand on the card.
SECTIONS: tuple[SectionSpec, ...] = (STEP_TIME, STEP_MEMORY, PROCESS, SYSTEM)

NO_HARDWARE = Hardware(cpus=None, memory_bytes=None, gpus=[])

# What begins with this in `telemetry.failures` is a section that could not be built.
BUILDING = "building the section"

logger = get_error_logger("Report")


def build_summary(
    folder: Path,
    *,
    status: RunStatus | None = None,
    live: bool = False,
    on_read: Callable[[], None] | None = None,
) -> FinalSummary:
    """The summary of the run in `folder`, from its manifest and its history.

    `status` is given by whoever knows how the run ended; else it follows from what the ranks said and whether the
    run's owner still lives. `live` judges by the live policies. `on_read` is called once nothing more is read. What the
    report costs (`telemetry.report_s`) is left to whoever has it made for a training that waits.

    Raises:
        HistoryUnreadableError: there is no history, or it cannot be read. A section that cannot be built does not
            raise: it says NO_DATA, errors.log says why, and `telemetry.failures` counts it.
    """
    failures: Counter[str] = Counter()
    with HistoryReader(open_run_folder(folder).history) as reader:
        stored = _stored_run(folder, reader, status)
        tables = TablesReadOnce(reader)
        loaded = {spec.name: _load_section(spec, tables, stored.shape, failures) for spec in SECTIONS}
        failures.update(reader.failures())
    if on_read is not None:
        on_read()
    built = {spec.name: _build_section(spec, loaded[spec.name], live, failures) for spec in SECTIONS}
    numbers = next((one.run_numbers for one in built.values() if one.run_numbers is not None), _unknown(stored.shape))
    hardware = next((one.hardware for one in built.values() if one.hardware is not None), NO_HARDWARE)
    sections = {name: one.section for name, one in built.items()}
    return FinalSummary(
        run=summarise_run(stored, numbers, hardware),
        primary_diagnosis=primary_diagnosis(sections, stored.shape),
        time_budget=numbers.budget,
        sections=sections,
        telemetry=summarise_telemetry(
            stored.ranks,
            failures,
            steps=numbers.steps,
            redone_steps=numbers.redone_steps,
            wall_s=stored.shape.wall_s,
        ),
    )


def _load_section(spec: SectionSpec, tables: TablesReadOnce, run: RunShape, failures: Counter[str]) -> Any:
    """What one section is built from; None where that cannot be read, with the cause in errors.log."""
    doing = f"{BUILDING} {spec.name}"
    with fail_open(logger, doing, failures, edge=doing):
        return spec.load(tables, run)
    return None


def _build_section(spec: SectionSpec, inputs: Any, live: bool, failures: Counter[str]) -> BuiltSection:
    """One section; NO_DATA where it cannot be built, with the cause in errors.log."""
    if inputs is not None:
        doing = f"{BUILDING} {spec.name}"
        with fail_open(logger, doing, failures, edge=doing):
            return spec.build(inputs, live)
    words = f"The section {spec.name.replace('_', ' ')} could not be built."
    said = no_data(spec.name, words, "See errors.log in the run folder for the cause.").primary
    return BuiltSection(Section(diagnosis=said, issues=[said], metrics={}, ranks=[]))


def unbuilt_sections(summary: FinalSummary) -> list[str]:
    """What could not be built of a summary, as `telemetry.failures` names it."""
    return [edge for edge in summary.telemetry.failures if edge.startswith(BUILDING)]


def write_final(folder: Path, summary: FinalSummary, card_text: str, *, synced: bool = True) -> None:
    """Write `final_summary.txt`, then `final_summary.json`, each whole or not at all: the JSON says that all is there.

    Without `synced` a power cut may still cost them, until the disk is told to hold them.

    Raises:
        OSError: a file could not be written.
    """
    write_final_text(folder, card_text, synced=synced)
    write_final_json(folder, summary, synced=synced)


def write_final_text(folder: Path, card_text: str, *, synced: bool = True) -> None:
    """The first half of `write_final`."""
    write_atomic(open_run_folder(folder).final_summary_text, card_text.encode(), synced=synced)


def write_final_json(folder: Path, summary: FinalSummary, *, synced: bool = True) -> None:
    """The second half, for who has something to add to the summary in between."""
    write_atomic(open_run_folder(folder).final_summary_json, encode_summary(summary), synced=synced)


def _stored_run(folder: Path, reader: HistoryReader, status: RunStatus | None) -> StoredRun:
    manifest, ranks = read_manifest(folder), reader.ranks()
    ending = None if manifest is None else manifest.ending
    shape = run_shape_of(ranks, reader.facts(), status=status or status_of(manifest, ranks), ending=ending)
    return StoredRun(folder=folder, manifest=manifest, ranks=ranks, shape=shape)


def _unknown(run: RunShape) -> RunNumbers:
    """What is known of the run as a whole where its step times are not: its wall time."""
    budget = TimeBudget(wall_s=run.wall_s, clock="host", coverage_share=0.0, unattributed_share=0.0, parts=[])
    return RunNumbers(steps=0, samples_per_s=None, tokens_per_s=None, budget=budget)
