"""The same question to the known tool's `compare`: its runs, recorded and compared by its own command.

It compares one run with one run, and names findings; the first finding is its verdict.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

TRAINING = Path(__file__).with_name("compare_peer_training.py")


def record_peer(python: Path, folder: Path, kinds: Mapping[str, Sequence[str]], turns: int) -> None:
    """Train what the folder lacks under the known tool, all kinds in turn."""
    for turn in range(turns):
        for kind, options in kinds.items():
            logs = _logs(folder, kind, turn)
            if _summary(logs) is None:
                logs.mkdir(parents=True, exist_ok=True)
                command = [python.with_name("traceml"), "run", TRAINING, "--mode", "summary", "--logs-dir", logs]
                given = ["--args", *options] if options else []
                subprocess.run([*command, *given], check=True, capture_output=True, cwd=logs)


def print_peer(python: Path, folder: Path, before: str, after: str, turns: int) -> None:
    """Compare the pairs of each turn; how often which verdict came, and which finding on the training itself."""
    verdicts: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    for turn in range(turns):
        sides = [_summary(_logs(folder, kind, turn)) for kind in (before, after)]
        with tempfile.TemporaryDirectory() as temporary:
            command = [str(python.with_name("traceml")), "compare", *map(str, sides), "--output", f"{temporary}/told"]
            subprocess.run(command, check=True, capture_output=True)
            told = json.loads((Path(temporary) / "told.json").read_text())["verdict"]
        verdicts[told["status"]] += 1
        findings.update({finding["status"] for finding in told["findings"][1:]})
    print(f"the known tool, {before} to {after}: verdicts {dict(verdicts)}, further findings {dict(findings)}")


def _logs(folder: Path, kind: str, turn: int) -> Path:
    return folder.absolute() / f"peer-{kind}-{turn:03d}"


def _summary(logs: Path) -> Path | None:
    return next(iter(sorted(logs.rglob("final_summary.json"))), None)
