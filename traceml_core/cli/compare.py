"""`traceml compare`: two runs, or two sides of several, set against each other; and a gate for CI."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from traceml_core.cli.failure import CommandError
from traceml_core.cli.printing import print_text, speaks_unicode, wants_color
from traceml_core.cli.run_argument import load_run
from traceml_core.cli.runs_dir_option import runs_dir_option

if TYPE_CHECKING:
    from traceml_core.reporting.compare.model import Comparison

REGRESSED, UNDECIDED = 1, 3


def _share(_: click.Context, __: click.Parameter, text: str) -> float:
    """A share that is written as a percentage, `5%`, or as a fraction, `0.05`."""
    try:
        share = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise CommandError(f"--margin {text} is no share between 0% and 100%; write 5% or 0.05")
    return share


@click.command()
@click.argument("runs", nargs=-1, metavar="[A B]")
@click.option("--a", "a_runs", multiple=True, metavar="RUN", help="A run of side A; may be given several times.")
@click.option("--b", "b_runs", multiple=True, metavar="RUN", help="A run of side B; may be given several times.")
@click.option(
    "--margin",
    callback=_share,
    metavar="SHARE",
    default="5%",
    show_default=True,
    help="The change that does not matter.",
)
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "markdown", "html"]), default="text", show_default=True
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file instead.")
@click.option("--fail-on", type=click.Choice(["regression"]), help="Exit with 1 when B is a regression.")
@click.option("--strict", is_flag=True, help="Exit with 3 when it cannot be told.")
@runs_dir_option
def compare(
    runs: tuple[str, ...],
    a_runs: tuple[str, ...],
    b_runs: tuple[str, ...],
    margin: float,
    form: str,
    output: Path | None,
    fail_on: str | None,
    strict: bool,
    runs_dir: str,
) -> None:
    """Set run B (after) against run A (before).

    B is slower, faster, the same, or not to be told, and in which phase. A and B are run folders, their names in the
    runs folder, or final_summary.json files.

    \b
    Exit codes:
      0  no regression; or nobody asked (--fail-on, --strict)
      1  a regression, with --fail-on regression
      2  wrong usage, or a run that cannot be read
      3  inconclusive, with --strict

    \b
    Example: traceml compare before after
    Example: traceml compare --a old1 --a old2 --b new1 --b new2 \\
               --fail-on regression --margin 5% --format markdown
    """
    comparison = _compare(*_sides(runs, a_runs, b_runs), margin, runs_dir)
    _show(comparison, form, output)
    if fail_on == "regression" and comparison.verdict == "REGRESSION":
        sys.exit(REGRESSED)
    if strict and comparison.verdict == "INCONCLUSIVE":
        sys.exit(UNDECIDED)


def _sides(
    runs: tuple[str, ...], a_runs: tuple[str, ...], b_runs: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if runs and not a_runs and not b_runs and len(runs) == 2:
        return runs[:1], runs[1:]
    if not runs and a_runs and b_runs:
        return a_runs, b_runs
    raise CommandError(
        "compare needs two sides: `traceml compare A B`, or `--a RUN` and `--b RUN`, each as often as there are runs"
    )


def _compare(a: tuple[str, ...], b: tuple[str, ...], margin: float, runs_dir: str) -> Comparison:
    from traceml_core.reporting.compare.core import compare as compare_sides

    of_a, of_b = ([load_run(run, runs_dir)[0] for run in side] for side in (a, b))
    return compare_sides(of_a, of_b, margin)


def _show(comparison: Comparison, form: str, output: Path | None) -> None:
    from traceml_core.reporting.compare.formatters import FORMATS, as_text

    if output is not None:
        try:
            output.write_text(FORMATS[form](comparison), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{output} cannot be written ({error.strerror}); choose another --output") from error
    elif form == "text" and sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        print_text(as_text(comparison, columns=columns, color=wants_color(), unicode=speaks_unicode()))
    else:
        print_text(FORMATS[form](comparison))
