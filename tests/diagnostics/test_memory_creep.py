"""Creep is found in leaks and never in healthy runs. `traces/` holds numbers recorded at 10 Hz from real trainings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traceml_core.diagnostics.memory_creep import CreepPolicy, find_creep

POLICY = CreepPolicy()
TRACES = Path(__file__).parent / "traces"
MIB = 2**20
seeds = st.integers(0, 2**31)


def creep_of(mebibytes, *, step_ms=10.0, every_s=0.1):
    """Judge a trace sampled every `every_s`, of steps that take `step_ms`."""
    at_s = np.arange(len(mebibytes)) * every_s
    return find_creep(at_s, np.floor(at_s * 1000 / step_ms), np.asarray(mebibytes) * MIB, POLICY)


def recorded(name, whose=""):
    trace = {key: np.array(values) for key, values in json.loads((TRACES / f"{name}.json").read_text()).items()}
    rows = trace["workers"] > 0 if whose else np.ones(trace["step"].size, bool)
    return find_creep(trace["at_s"][rows], trace["step"][rows], trace[f"{whose}rss_kib"][rows] * 1024.0, POLICY)


@pytest.mark.parametrize("name", ["hf_40_kib_a_step", "lightning_dicts", "graphs"])
def test_recorded_leaks_are_found(name):
    assert recorded(f"leak_{name}") is not None


def test_a_recorded_leak_in_workers_is_found_in_the_workers_alone():
    assert recorded("leak_in_workers", "workers_") is not None
    assert recorded("leak_in_workers") is None


@pytest.mark.parametrize("path", sorted(TRACES.glob("healthy_*.json")), ids=lambda path: path.stem)
def test_recorded_healthy_runs_do_not_creep_at_any_point(path):
    trace = {key: np.array(values) for key, values in json.loads(path.read_text()).items()}
    for end in range(10, trace["step"].size + 1, 7):
        rss = trace["rss_kib"][:end] * 1024.0
        assert find_creep(trace["at_s"][:end], trace["step"][:end], rss, POLICY) is None


@settings(max_examples=60, derandomize=True)
@given(st.floats(100, 2_000), st.floats(8, 15), st.floats(300, 3_000), seeds)
def test_a_steady_leak_is_found_within_300_steps(kib_a_step, step_ms, base_mib, seed):
    random = np.random.default_rng(seed)
    count = int(345 * step_ms / 100)
    steps = np.arange(count) * 100 / step_ms
    trace = base_mib + steps * kib_a_step / 1024 + random.exponential(0.5, count)
    creep = creep_of(trace, step_ms=step_ms)
    assert creep is not None
    assert creep.bytes_per_step == pytest.approx(kib_a_step * 1024, rel=0.25)


@settings(max_examples=40, derandomize=True)
@given(st.floats(12, 30), st.floats(300, 500), seeds)
def test_a_small_leak_is_found_within_300_steps_where_memory_is_otherwise_still(kib_a_step, base_mib, seed):
    random = np.random.default_rng(seed)
    steps = np.arange(35) * 10.0
    assert creep_of(base_mib + steps * kib_a_step / 1024 + random.exponential(0.02, 35)) is not None


@settings(max_examples=60, derandomize=True)
@given(st.integers(40, 120), st.floats(60, 500), seeds)
def test_a_leak_is_found_whatever_the_pace_of_the_steps(count, kib_a_step, seed):
    random = np.random.default_rng(seed)
    pace = np.repeat(np.exp(random.normal(0, 0.7, count // 9 + 1)), 9)[:count]
    steps = np.floor(np.cumsum(pace) / pace.sum() * 345)
    at_s = np.cumsum(0.1 * np.exp(random.normal(0, 0.3, count)))
    size = 400 + steps * kib_a_step / 1024 + random.exponential(0.1, count)
    assert find_creep(at_s, steps, size * MIB, POLICY) is not None


@settings(max_examples=20, derandomize=True)
@given(st.integers(300, 1_900), seeds)
def test_a_steady_leak_of_slow_steps_is_found_within_20_seconds(step_ms, seed):
    random = np.random.default_rng(seed)
    steps = np.floor(np.arange(215) * 100 / step_ms)
    assert creep_of(500 + steps * 4 + random.exponential(1.0, 215), step_ms=step_ms) is not None


@settings(max_examples=20, derandomize=True)
@given(seeds)
def test_a_leak_behind_an_allocator_that_settles_is_found(seed):
    random = np.random.default_rng(seed)
    steps = np.arange(60) * 10.0
    settling = 60 * (1 - np.exp(-steps / 60))
    assert creep_of(400 + settling + steps * 0.2 + random.exponential(0.5, 60)) is not None


HEALTHY = {
    "flat": lambda t, random: np.zeros_like(t),
    "settles": lambda t, random: random.uniform(10, 400) * (1 - np.exp(-t / random.uniform(0.02, 0.15))),
    "jumps once": lambda t, random: random.uniform(10, 800) * (t > random.uniform(0.1, 0.9)),
    "jumps twice": lambda t, random: random.uniform(10, 400) * ((t > 0.3).astype(float) + (t > 0.7)),
    "saw-tooth": lambda t, random: random.uniform(10, 300) * ((t * random.integers(2, 12)) % 1.0),
    "transients": lambda t, random: random.uniform(10, 500) * (random.random(t.size) < 0.3),
    "gives back": lambda t, random: 200 * np.minimum(t, 0.8) * (t < 0.95),
    "plateau": lambda t, random: 200 * np.minimum(t * random.uniform(2.5, 8), 1.0),
    "rising transients": lambda t, random: 300 * t * (random.random(t.size) < 0.6),
}


@pytest.mark.parametrize("shape", HEALTHY)
@settings(max_examples=40, derandomize=True)
@given(st.sampled_from([30, 60, 120, 600, 2_000]), st.floats(100, 4_000), st.floats(0.0, 3.0), seeds)
def test_healthy_shapes_never_creep(shape, count, base_mib, noise_mib, seed):
    random = np.random.default_rng(seed)
    t = np.linspace(0, 1, count)
    assert creep_of(base_mib + HEALTHY[shape](t, random) + random.exponential(noise_mib + 1e-9, count)) is None


@settings(max_examples=40, derandomize=True)
@given(seeds, st.sampled_from([30, 300, 2_000]))
def test_growth_too_small_to_matter_is_not_creep(seed, count):
    random = np.random.default_rng(seed)
    assert creep_of(800 + np.linspace(0, 5, count) + random.exponential(0.5, count)) is None


def test_a_slow_drift_over_an_hour_is_not_creep_and_a_leak_is():
    steps = np.linspace(0, 1, 3_600)
    assert creep_of(4_000 + 100 * steps, every_s=1.0) is None
    assert creep_of(4_000 + 1_000 * steps, every_s=1.0) is not None


@pytest.mark.parametrize(("close_looks_s", "every_s", "total_s"), [(60, 0.1, 75), (60, 0.1, 600), (10, 0.02, 25)])
def test_a_leak_is_found_where_looks_become_rarer(close_looks_s, every_s, total_s):
    random = np.random.default_rng(1)
    at_s = np.concatenate([np.arange(0, close_looks_s, every_s), np.arange(close_looks_s, total_s, every_s * 10)])
    step = np.floor(at_s * 200)
    size = (500 + step * 30 / 1024 + random.exponential(0.5, step.size)) * MIB
    assert find_creep(at_s, step, size, POLICY) is not None


def test_what_happens_after_the_last_step_is_not_judged():
    at_s = np.arange(400) * 0.1
    step = np.minimum(at_s * 10, 200)
    assert find_creep(at_s, step, (500 + np.maximum(at_s - 20, 0) * 50) * MIB, POLICY) is None


def test_pauses_for_validation_do_not_hide_a_leak():
    at_s = np.arange(120) * 0.1
    training = (np.arange(120) // 10) % 2 == 0
    step = np.cumsum(training) * 10.0
    validating = np.where(training, 0.0, 30.0)
    assert find_creep(at_s, step, (500 + step * 0.2 + validating) * MIB, POLICY) is not None


def test_a_few_samples_are_no_basis():
    assert creep_of(500 + np.arange(12) * 50.0) is None
    assert creep_of(np.zeros(0)) is None
