"""Make `docs/screenshots/live.svg`: the example training goes on, and `traceml live` shows it in a real terminal.

    python docs/screenshots/live.py

Needs the extra `dev`.
"""

from __future__ import annotations

import io
import itertools
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from pyte.screens import Char
from rich.console import Console
from rich.text import Text

REPOSITORY = Path(__file__).parents[2]
sys.path += [str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "display")]

from pseudo_terminal import PseudoTerminal, traceml  # noqa: E402
from waiting import wait_for  # noqa: E402

COLUMNS, LINES = 80, 24
TEN_SECONDS = re.compile(r"steps in 1\d\.")
COLOURS = {"brown": "yellow"}  # pyte calls it by its old name


def main() -> None:
    """Train, look, draw."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "traceml_runs"
        script = [sys.executable, str(REPOSITORY / "examples" / "lightning_digits.py"), "--epochs", "40"]
        training = subprocess.Popen(
            [*traceml("run", "--name", "digits", "--runs-dir", runs, "--"), *script],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(lambda: list(runs.glob("*/live_summary.json")))
            with PseudoTerminal(traceml("live", "--runs-dir", runs), COLUMNS, LINES) as terminal:
                wait_for(lambda: TEN_SECONDS.search(terminal.read()))
                picture = svg(terminal)
                terminal.type(b"q")
                terminal.wait_for_end()
        finally:
            training.terminate()
            training.wait()
    (Path(__file__).parent / "live.svg").write_text(picture, encoding="utf-8")


def svg(terminal: PseudoTerminal) -> str:
    """The screen as a picture that asks no other host for a font."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="standard")
    for row in range(LINES):
        cells = [terminal.screen.buffer[row][column] for column in range(COLUMNS)]
        line = Text(no_wrap=True)
        for style, run in itertools.groupby(cells, key=style_of):
            line.append("".join(cell.data for cell in run), style)
        console.print(line)
    drawn = console.export_svg(title="traceml live", unique_id="traceml-live")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)


def style_of(cell: Char) -> str:
    """Rich's words for how a cell of the terminal looks."""
    ink, paper = (COLOURS.get(name, name.replace("bright", "bright_")) for name in (cell.fg, cell.bg))
    return f"{'bold ' if cell.bold else ''}{ink} on {paper}"


if __name__ == "__main__":
    main()
