"""`traceml demo`: three real trainings, each with its report, and the two Lightning verdicts side by side."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import click
import msgspec

from traceml_core.cli.printing import print_line
from traceml_core.core.units import milliseconds
from traceml_core.reporting.summary import FinalSummary, decode_summary

PACKAGED = Path(__file__).parent / "examples"
CHECKOUT = Path(__file__).parents[2] / "examples"
NEEDS = ("torch", "lightning", "transformers", "accelerate", "sklearn")


class Training(msgspec.Struct, frozen=True):
    """One training of the demo: its heading, and the example that runs with which arguments."""

    name: str
    heading: str
    script: str
    arguments: tuple[str, ...] = ()


SLOW = Training("demo-slow-loader", "Lightning, with a loader that is too slow", "lightning_digits.py")
MENDED = Training("demo-mended-loader", "The same script, its loader mended", "lightning_digits.py", ("--mended",))
TRAINER = Training("demo-hf-trainer", "Hugging Face Trainer", "hf_digits.py")


@click.command()
@click.option("--runs-dir", default="traceml_runs", show_default=True, help="Where the run folders go.")
def demo(runs_dir: str) -> None:
    """Train three times for real, each with its report.

    About a minute. Needs the extra `demo` and torch; downloads nothing. Example: traceml demo
    """
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise click.UsageError(
            f"the demo needs {', '.join(missing)}: pip install torch 'traceml-callbacks[demo]', then run it again"
        )
    summaries = {training.name: _train(training, runs_dir) for training in (SLOW, MENDED, TRAINER)}
    print_line(_comparison(summaries[SLOW.name], summaries[MENDED.name]))


def _train(training: Training, runs_dir: str) -> FinalSummary:
    """Run one training as a user would, its output passing through; its summary."""
    click.echo(f"\n== {training.heading} ==\n", color=None)
    before = _summaries(runs_dir)
    # Settings of the user's own, that none be recorded say, are meant for other trainings.
    theirs = {name: value for name, value in os.environ.items() if not name.startswith("TRACEML_")}
    environment = {**theirs, "TRACEML_NAME": training.name, "TRACEML_RUNS_DIR": runs_dir}
    folder = PACKAGED if PACKAGED.is_dir() else CHECKOUT
    finished = subprocess.run([sys.executable, str(folder / training.script), *training.arguments], env=environment)
    if finished.returncode != 0:
        raise click.ClickException(
            f"{training.script} ended with exit code {finished.returncode}; see its output above"
        )
    made = sorted(_summaries(runs_dir) - before)
    if not made:
        raise click.ClickException(f"{training.script} left no report in {runs_dir}; see errors.log in its run folder")
    return decode_summary(made[-1].read_bytes())


def _summaries(runs_dir: str) -> set[Path]:
    return set(Path(runs_dir).glob("*/final_summary.json"))


def _comparison(slow: FinalSummary, mended: FinalSummary) -> str:
    """The closing lines: verdict, median step time and duration of both Lightning runs."""
    lines = [f"\n{'':18}{'too slow':>22}{'mended':>22}"]
    rows = (
        ("verdict", [summary.primary_diagnosis.label for summary in (slow, mended)]),
        ("step interval", [_interval(summary) for summary in (slow, mended)]),
        ("waiting for data", [_waiting(summary) for summary in (slow, mended)]),
        ("samples a second", [f"{summary.run.samples_per_s or 0:,.0f}" for summary in (slow, mended)]),
    )
    lines += [f"{title:18}{values[0]:>22}{values[1]:>22}" for title, values in rows]
    return "\n".join(lines)


def _interval(summary: FinalSummary) -> str:
    return milliseconds(summary.sections["step_time"].metrics["step_interval_ms"].median)


def _waiting(summary: FinalSummary) -> str:
    return milliseconds(summary.sections["step_time"].metrics["input_wait_ms"].median)
