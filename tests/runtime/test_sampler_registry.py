"""The sampler registry: what is selected where, and the contract that every registered sampler keeps."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from traceml_core.core.identity import RankIdentity
from traceml_core.core.phases import Phase
from traceml_core.core.rows import columns_of
from traceml_core.core.settings import resolve_settings
from traceml_core.history.tables import create_tables, row_table
from traceml_core.instrumentation.phase_clock import PhaseClock
from traceml_core.instrumentation.step_recorder import StepRecorder
from traceml_core.runtime.outbox import sized_chunks
from traceml_core.runtime.sampler_registry import (
    DEFAULT_SAMPLER_REGISTRY,
    EVERY_MODE,
    SamplerSpec,
    row_types,
    samplers_for,
)
from traceml_core.samplers.base import SamplerContext

PROFILES = ("run", "watch")
BY_NAME = pytest.mark.parametrize("spec", DEFAULT_SAMPLER_REGISTRY, ids=lambda spec: spec.name)


@pytest.fixture
def context() -> Iterator[SamplerContext]:
    """This very process, with a child, as one that has done a few steps."""
    clock = PhaseClock()
    steps = StepRecorder(clock)
    clock.leave(Phase.STARTUP)
    for _ in range(3):
        steps.fetch()
        clock.enter(clock.slot(Phase.CALLBACKS, "EarlyStopping"))
        clock.unwind()
        steps.optimizer_step()
    steps.finish()
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        yield SamplerContext(
            identity=RankIdentity(),
            clock=clock,
            steps=steps,
            watched_pid=os.getpid(),
            device=lambda: None,
            unmeasured=frozenset,
            aggregator_pid=lambda: None,
        )
        child.stdin.close()


def names(profile: str, mode: str = "summary") -> set[str]:
    return {spec.name for spec in samplers_for(profile, mode)}


def test_a_run_is_looked_at_by_every_sampler():
    assert names("run") == {spec.name for spec in DEFAULT_SAMPLER_REGISTRY}


def test_watching_looks_at_the_process_and_the_system_and_measures_no_steps():
    assert names("watch") == {"process", "process_memory", "system", "gpu"}


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_what_is_measured_does_not_depend_on_how_it_is_shown(mode):
    assert names("run", mode) == names("run")


def test_an_unknown_profile_or_mode_selects_nothing():
    assert samplers_for("deep", "summary") == ()
    assert samplers_for("run", "hologram") == ()


def test_profiles_and_modes_are_those_of_the_settings():
    for profile, mode in itertools.product(PROFILES, EVERY_MODE):
        resolve_settings(profile=profile, mode=mode)


def test_the_order_is_that_of_the_registry():
    places = [DEFAULT_SAMPLER_REGISTRY.index(spec) for spec in samplers_for("run", "summary")]
    assert places == sorted(places)


def test_a_sampler_is_restricted_by_profile_and_by_mode():
    spec = SamplerSpec(name="x", build=lambda context: None, row_types=(), profiles=("watch",), modes=("cli",))
    found = [pair for pair in itertools.product(PROFILES, EVERY_MODE) if samplers_for(*pair, registry=(spec,))]
    assert found == [("watch", "cli")]


def test_names_and_tables_are_unique():
    sampler_names = [spec.name for spec in DEFAULT_SAMPLER_REGISTRY]
    tables = [row_type.table for row_type in row_types()]
    assert len(set(sampler_names)) == len(sampler_names)
    assert len(set(tables)) == len(tables)


@BY_NAME
def test_a_samplers_profiles_and_modes_exist_and_its_interval_is_a_time(spec):
    assert set(spec.profiles) <= set(PROFILES)
    assert spec.profiles
    assert set(spec.modes) <= set(EVERY_MODE)
    assert spec.interval_s is None or spec.interval_s >= 0


@BY_NAME
def test_its_rows_have_tables_with_columns_and_say_what_they_are(spec):
    assert spec.row_types
    for row_type in spec.row_types:
        assert columns_of(row_type)
        assert row_type.__doc__
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        create_tables(database, [row_table(row_type) for row_type in spec.row_types])
        made = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {row_type.table for row_type in spec.row_types} <= made


@BY_NAME
def test_on_a_real_process_it_gives_rows_of_its_own_types_with_values_of_their_kinds(spec, context):
    sampler = spec.build(context)
    rows = [row for _ in range(2) for row in sampler.sample()]
    assert {type(row) for row in rows} <= set(spec.row_types)
    for row in rows:
        for column in columns_of(type(row)):
            value = getattr(row, column.name)
            assert type(value) is column.kind or (value is None and column.nullable), (row.table, column.name, value)


@BY_NAME
def test_its_rows_survive_the_wire(spec, context):
    rows = list(spec.build(context).sample())
    types = {row_type.table: row_type for row_type in spec.row_types}
    decoded = [
        row
        for sized in sized_chunks(rows)
        for row in msgspec.msgpack.decode(sized.chunk.rows, type=list[types[sized.chunk.table]])
    ]
    assert sorted(map(repr, decoded)) == sorted(map(repr, rows))


def test_every_sampler_but_the_gpus_has_something_to_tell_of_a_real_process(context):
    silent = [spec.name for spec in DEFAULT_SAMPLER_REGISTRY if not spec.build(context).sample()]
    assert set(silent) <= {"gpu"}


def test_samplers_load_nothing_that_a_rank_should_not_have_to_load():
    code = """
import sys
import traceml_core.runtime.sampler_registry
loaded = {name.partition(".")[0] for name in sys.modules}
print(*(loaded & {"numpy", "torch", "rich", "click", "pynvml", "lightning", "transformers", "accelerate", "sqlite3"}))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
