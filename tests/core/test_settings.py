"""Settings: argument over environment over default; a bad argument raises, a bad variable warns once."""

from __future__ import annotations

import json
import subprocess
import sys
import typing
import warnings
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceml_core.core import settings as settings_module
from traceml_core.core.settings import Settings, SettingsArguments, resolve_settings, settings_reference

ROOT = str(Path(__file__).parents[2])

BAD_ARGUMENTS = [
    ("name", ""),
    ("name", 7),
    ("runs_dir", None),
    ("run_dir", "  "),
    ("enabled", "yes"),
    ("enabled", 1),
    ("mode", "quiet"),
    ("profile", "deep"),
    ("report", True),
    ("trackers", None),
    ("log_every_n_steps", 0),
    ("log_every_n_steps", True),
    ("log_every_n_steps", 2.5),
    ("labels", {"team": 1}),
    ("labels", ["a"]),
    ("record_errors", 0),
    ("sample_interval_s", 0),
    ("sample_interval_s", float("nan")),
    ("sample_interval_s", float("inf")),
    ("sample_interval_s", True),
    ("sample_interval_s", "1"),
    ("port", -1),
    ("port", 65536),
    ("port", 80.0),
]


@pytest.fixture(autouse=True)
def _nothing_was_warned_of(monkeypatch):
    monkeypatch.setattr(settings_module, "_WARNED", set())


@pytest.mark.parametrize(("name", "value"), BAD_ARGUMENTS)
def test_a_bad_argument_names_itself_its_value_and_what_is_accepted(name, value):
    with pytest.raises(ValueError, match=f"{name}=.* is not accepted; {name} is ") as caught:
        resolve_settings({}, **{name: value})
    assert repr(value) in str(caught.value)


def test_an_unknown_argument_names_those_that_are_known():
    with pytest.raises(ValueError, match="unknown setting 'runs_directory'; TraceML knows name, runs_dir"):
        resolve_settings({}, runs_directory="x")


def test_an_argument_wins_over_the_environment_and_that_over_the_default():
    environment = {"TRACEML_PORT": "99", "TRACEML_MODE": "cli"}
    settings = resolve_settings(environment, port=7)
    assert (settings.port, settings.mode, settings.profile) == (7, "cli", "run")


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("TRACEML_NAME", "<script> ../x", "name", "<script> ../x"),
        ("TRACEML_ENABLED", "off", "enabled", False),
        ("TRACEML_TRACKERS", "No", "trackers", False),
        ("TRACEML_RECORD_ERRORS", "0", "record_errors", False),
        ("TRACEML_REPORT", "line", "report", "line"),
        ("TRACEML_LOG_EVERY_N_STEPS", " 50 ", "log_every_n_steps", 50),
        ("TRACEML_SAMPLE_INTERVAL_S", "0.25", "sample_interval_s", 0.25),
        ("TRACEML_LABELS", "team=vision, note=a=b,", "labels", {"team": "vision", "note": "a=b"}),
        ("TRACEML_RUN_DIR", "", "run_dir", None),
        ("TRACEML_DISABLED", "1", "enabled", False),
        ("TRACEML_DISABLED", "0", "enabled", True),
    ],
)
def test_the_environment_is_read(variable, text, name, value):
    assert getattr(resolve_settings({variable: text}), name) == value


def test_what_turns_everything_off_wins_over_an_argument():
    assert resolve_settings({"TRACEML_DISABLED": "true"}, enabled=True).enabled is False


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("TRACEML_PORT", "http"),
        ("TRACEML_PORT", "70000"),
        ("TRACEML_ENABLED", "perhaps"),
        ("TRACEML_MODE", "quiet"),
        ("TRACEML_LABELS", "no pair"),
        ("TRACEML_SAMPLE_INTERVAL_S", "nan"),
    ],
)
def test_a_bad_variable_warns_once_and_is_ignored(variable, text):
    with pytest.warns(UserWarning, match=f"TraceML: {variable}='{text}' is ignored: .* is ") as caught:
        first = resolve_settings({variable: text})
        second = resolve_settings({variable: text})
    assert len(caught) == 1
    assert first == second == Settings()


def test_a_bad_variable_of_a_setting_that_was_given_is_of_no_interest():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_settings({"TRACEML_PORT": "http"}, port=5).port == 5


def test_values_that_the_neighbour_tool_knows_are_ignored_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_settings({"TRACEML_PROFILE": "deep", "TRACEML_NO_SUCH": "x"}) == Settings()


def test_labels_of_job_environment_and_argument_are_put_together():
    environment = {"SLURM_JOB_ID": "17", "TRACEML_LABELS": "team=vision,run=env"}
    labels = resolve_settings(environment, labels={"run": "mine"}).labels
    assert labels == {"slurm_job_id": "17", "team": "vision", "run": "mine"}


def test_a_path_object_is_a_path():
    assert resolve_settings({}, runs_dir=Path("here"), run_dir=None).runs_dir == "here"


def test_the_arguments_and_the_struct_name_the_same_settings_with_the_same_types():
    assert typing.get_type_hints(SettingsArguments) == {
        name: typing.get_type_hints(Settings)[name] for name in Settings.__struct_fields__
    }


def test_every_setting_is_described_in_the_reference():
    reference = settings_reference()
    rows = [line for line in reference.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(Settings.__struct_fields__)
    assert all(len(row.split(" | ")) == 5 for row in rows)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(name=st.sampled_from(Settings.__struct_fields__), value=json_values)
def test_any_value_is_either_accepted_as_it_is_or_a_value_error(name, value):
    try:
        settled = resolve_settings({}, **{name: value})
    except ValueError:
        return
    assert getattr(settled, name) == value
    assert json.loads(msgspec.json.encode(settled))[name] == value


@given(text=st.text(), name=st.sampled_from(Settings.__struct_fields__))
def test_no_variable_can_break_training(text, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert isinstance(resolve_settings({f"TRACEML_{name.upper()}": text}), Settings)


def test_importing_the_core_loads_no_framework_and_nothing_heavy():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import traceml_core, traceml_core.core.settings,"
        "traceml_core.core.run_folder, traceml_core.runtime.session, traceml_core.telemetry.messages;"
        "heavy = 'torch numpy lightning transformers accelerate ray rich jinja2 plotly starlette sqlite3'.split();"
        "print([name for name in heavy if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-I", "-c", code, ROOT], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
