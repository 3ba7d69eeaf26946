"""The walks of docs/extending.md, performed: its code goes into a copy of the package, and a run shows the result."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "extending.md"
NEW_FILE = re.compile(r"New file `([^`]+)`:\n\n```python\n(.*?)```", re.DOTALL)
REGISTRATION = re.compile(
    r"Register it in `([^`]+)`, in `(\w+)`.*?```python\n(.*?)```\n\nand import it.*?```python\n(.*?)```", re.DOTALL
)
ROW = re.compile(r"Add a row in `([^`]+)`, in `(\w+)`:\n\n```python\n(.*?)```", re.DOTALL)
TRAIN = """
import time
import patience
from traceml_core.sdk import trace_run

patience.wait_patiently()
with trace_run(run_dir="run", report="off", sample_interval_s=0.1) as run:
    run.describe(batch_size=1)
    for _ in run.batches(range(40)):
        with run.step(), run.phase("forward"):
            time.sleep(0.01)
"""


def perform_walks(root: Path) -> None:
    """Put the page's code into the package at `root`."""
    page = PAGE.read_text()
    for name, code in NEW_FILE.findall(page):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    for name, registry, line, imported in (*REGISTRATION.findall(page), *((*row, "") for row in ROW.findall(page))):
        path = root / name
        text = path.read_text()
        opening = re.search(rf"^{registry}[^\n]*= \(", text, re.MULTILINE)
        text = text[: opening.end()] + "\n" + line + text[opening.end() :]
        future = "from __future__ import annotations\n"
        path.write_text(text.replace(future, future + imported, 1))


SHOW = """
from pathlib import Path
from traceml_core.renderers.screen import Freshness, screen_lines
from traceml_core.reporting.card_layout import look_for, to_text
from traceml_core.reporting.summary import decode_summary

look = look_for(80, color=False, symbols=None)
summary = decode_summary(Path("run/final_summary.json").read_bytes())
print(to_text(screen_lines(summary, Freshness(0.0), look, 40), look))
"""


def test_each_walk_is_one_file_and_one_line_or_one_row(tmp_path):
    shutil.copytree(
        REPOSITORY / "traceml_core", tmp_path / "traceml_core", ignore=shutil.ignore_patterns("__pycache__")
    )
    perform_walks(tmp_path)
    (tmp_path / "train.py").write_text(TRAIN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(REPOSITORY / "tests")))}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("train.py")
    assert (tmp_path / "run" / "errors.log").read_text() == ""
    summary = json.loads((tmp_path / "run" / "final_summary.json").read_text())
    kinds = [issue["kind"] for issue in summary["sections"]["step_time"]["issues"]]
    assert "TINY_BATCHES" in kinds
    assert re.fullmatch(r"At most \d+ files were open\.", summary["sections"]["open_files"]["diagnosis"]["summary"])
    assert "Files open" in (tmp_path / "run" / "final_summary.txt").read_text()
    assert re.search(r"^ Files +At most \d+ files were open\.$", run("-c", SHOW), re.MULTILINE)
    command = [sys.executable, "-m", "traceml_core", "compare", "run", "run", "--format"]
    for form in ("text", "json", "markdown", "html"):
        compared = subprocess.run(
            [*command, form], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert "host memory" in compared.stdout, compared.stderr


def test_the_page_has_all_its_walks():
    page = PAGE.read_text()
    assert len(NEW_FILE.findall(page)) == 8
    registries = [name for _, name, _, _ in REGISTRATION.findall(page)]
    assert registries == ["DEFAULT_SAMPLER_REGISTRY", "RULES", "SECTIONS", "RENDERERS"]
    assert [name for _, name, _ in ROW.findall(page)] == ["METRICS"]
