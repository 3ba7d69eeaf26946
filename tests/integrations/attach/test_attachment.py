"""`traceml run` on scripts that name no callback: the report of a script that has one, and nothing else different."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from traceml_core.reporting.summary import FinalSummary, decode_summary

HERE = Path(__file__).parent
FRAMEWORKS = {"lightning_train.py": "lightning", "hf_train.py": "hf_trainer"}


def start(tmp_path: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRACEML_")}
    environment = {**kept, "TRACEML_RUNS_DIR": str(tmp_path / "runs"), **variables}
    return subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environment, input="four", capture_output=True, text=True
    )


def the_summary(tmp_path: Path) -> FinalSummary:
    (path,) = (tmp_path / "runs").glob("*/final_summary.json")
    return decode_summary(path.read_bytes())


def untimed(output: str) -> str:
    """What is printed without its numbers, some of which are times."""
    return re.sub(r"'?\d+(\.\d+)?(e[+-]?\d+)?'?", "#", output)


def shape(summary: FinalSummary) -> dict[str, object]:
    """What two runs of the same script have in common."""
    run = summary.run
    facts = (run.framework, run.device, run.steps, run.batch_size, run.accumulation, run.precision, run.loader)
    return {
        "facts": (*facts, run.versions, run.status),
        "phases": {part.phase for part in summary.time_budget.parts if part.seconds is not None},
        **{name: set(section.metrics) for name, section in summary.sections.items() if name != "system"},
    }


@pytest.mark.parametrize("script", FRAMEWORKS)
def test_an_unchanged_script_has_the_report_of_one_with_the_callback_in_it(tmp_path, script):
    attached, explicit, plain = (tmp_path / name for name in ("attached", "explicit", "plain"))
    for folder in (attached, explicit, plain):
        folder.mkdir()
    without = start(plain, str(HERE / script), "out")
    ran = start(attached, "-m", "traceml_core", "run", str(HERE / script), "out")
    # The environment variable alone; and the script has a callback of its own, beside which no second one counts.
    own = start(explicit, str(HERE / script), "out", "--explicit", TRACEML_ATTACH="1")

    assert the_summary(attached).run.framework == FRAMEWORKS[script]
    assert shape(the_summary(attached)) == shape(the_summary(explicit))
    for one in (without, ran, own):
        assert one.stdout.endswith("trained 20 4\n")
        assert (one.returncode, untimed(one.stdout)) == (3, untimed(without.stdout))
    assert not (plain / "runs").exists()
    assert "second" not in own.stderr + ran.stderr
    assert "Adding" not in own.stderr


@pytest.mark.parametrize("group", ["lightning.pytorch.callbacks_factory", "pytorch_lightning.callbacks_factory"])
def test_lightning_is_given_nothing_and_nothing_is_imported_unless_asked_for(group):
    names = [(point.name, point.value) for point in importlib.metadata.entry_points(group=group)]
    assert ("traceml", "traceml_lightning.attachment:callbacks") in names
    code = (
        "import sys; from traceml_lightning.attachment import callbacks; before = set(sys.modules);"
        "print(callbacks(), set(sys.modules) - before, 'lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] set() False\n"


def test_a_python_that_is_not_asked_to_attach_loads_nothing_of_ours():
    environment = {name: value for name, value in os.environ.items() if name != "TRACEML_ATTACH"}
    code = "import sys; print([name for name in sys.modules if name.startswith('traceml')], sys.meta_path[0])"
    quiet = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    asked = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "TRACEML_ATTACH": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert quiet.stdout.startswith("[] ")
    assert "TrainerFinder" in asked.stdout, "the environment's install predates traceml_attach.pth: install it anew"
    assert "transformers" not in asked.stdout


def test_what_was_attached_can_be_taken_out_again(monkeypatch):
    pytest.importorskip("transformers")
    from traceml_hf import attachment

    module = ModuleType("transformers.trainer")
    module.DEFAULT_CALLBACKS = [dict]
    monkeypatch.setitem(sys.modules, "transformers.trainer", module)
    attachment.attach_when_loaded()
    attachment.attach_when_loaded()
    assert [one.__name__ for one in module.DEFAULT_CALLBACKS] == ["dict", "AttachedCallback"]
    attachment.detach()
    assert [dict] == module.DEFAULT_CALLBACKS


def test_a_trainer_that_cannot_be_attached_to_is_loaded_all_the_same():
    from traceml_hf import attachment

    attachment.attach(ModuleType("a_trainer_without_default_callbacks"))
