"""Importing the core costs next to nothing and touches no framework."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import traceml_core

FOREIGN = (
    "torch", "lightning", "pytorch_lightning", "transformers", "accelerate", "ray", "numpy", "rich", "click", "zmq",
    "jinja2", "plotly", "starlette", "uvicorn",
)  # fmt: skip


def test_importing_the_core_loads_no_framework_display_or_web_library():
    script = f"import sys, traceml_core; print([name for name in {FOREIGN!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


def test_the_version_is_the_distributions():
    declared = re.search(r'^version = "(.+)"$', Path(__file__).parents[2].joinpath("pyproject.toml").read_text(), re.M)

    assert declared is not None
    assert traceml_core.__version__ == declared[1]
