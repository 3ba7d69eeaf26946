"""What importing the adapter loads, and what a machine without Ray, or a worker without TraceML, sees."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import traceml_core

PLACE = Path(traceml_core.__file__).parents[1]


def ray_imports(package: str) -> Iterator[str]:
    """The modules of Ray that a package imports, those inside of functions too."""
    for path in (PLACE / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [f"{node.module}.{one.name}" for one in node.names]
            else:
                continue
            yield from (name for name in names if name.partition(".")[0] == "ray")


def python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_importing_the_package_loads_no_framework():
    frameworks = ("ray", "torch", "lightning", "pytorch_lightning", "transformers", "accelerate")
    done = python(f"import sys, traceml_ray; print([name for name in {frameworks} if name in sys.modules])")
    assert done.stdout.strip() == "[]"


def test_ray_is_imported_by_its_adapter_alone_and_only_what_is_public_of_it():
    others = ("traceml_core", "traceml_lightning", "traceml_hf")
    assert [name for package in others for name in ray_imports(package)] == []
    imported = set(ray_imports("traceml_ray"))
    assert {"ray", "ray.train.torch"} <= imported
    assert [name for name in imported if "._" in name or ".v2." in name] == []


@pytest.mark.slow
def test_the_trainer_loads_neither_lightning_nor_transformers():
    pytest.importorskip("ray.train.torch")
    frameworks = ("lightning", "pytorch_lightning", "transformers", "accelerate")
    done = python(
        "import sys\nfrom traceml_ray import TraceMLTorchTrainer\n"
        f"print([name for name in {frameworks} if name in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_without_ray_one_line_says_what_to_install():
    done = python("import sys; sys.modules['ray'] = None\nfrom traceml_ray import TraceMLTorchTrainer")
    line = done.stderr.strip().splitlines()[-1]
    assert line == "ImportError: TraceMLTorchTrainer needs ray: pip install 'traceml-callbacks[ray]' torch"


WITHOUT = """
import sys
for name in ("traceml_ray", "traceml_core"):
    sys.modules[name] = None
import ray.cloudpickle
loop = ray.cloudpickle.loads(bytes.fromhex(sys.argv[1]))
print(loop({"steps": 3}))
"""


@pytest.mark.slow
def test_a_worker_without_traceml_trains_and_says_that_it_is_not_recorded():
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    from traceml_ray.worker_loop import recorded_loop

    def loop(config):
        return config["steps"] * 2

    sent = cloudpickle.dumps(recorded_loop(loop, {}, None)).hex()
    done = subprocess.run([sys.executable, "-c", WITHOUT, sent], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "6", done.stderr
    assert "TraceML: a worker is not recorded" in done.stderr and "every node" in done.stderr


@dataclass(frozen=True)
class Diverged(Exception):
    """An error whose class forbids that anything is assigned to it."""

    step: int


def test_an_error_whose_class_allows_no_assignment_leaves_a_worker_as_it_is(monkeypatch):
    from traceml_ray.worker_loop import recorded_loop

    def loop(config):
        raise Diverged(config["steps"])

    monkeypatch.setitem(sys.modules, "traceml_ray.worker_run", None)
    with pytest.raises(Diverged):
        recorded_loop(loop, {}, None)({"steps": 3})
