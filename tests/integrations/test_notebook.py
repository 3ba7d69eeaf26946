"""A notebook: the end of a cell that failed closes the run that it left open, and the card is that cell's output."""

from __future__ import annotations

from pathlib import Path

import pytest
from waiting import LIMIT_S

from traceml_core.reporting.summary import decode_summary

pytestmark = pytest.mark.slow

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytest.importorskip("accelerate")

PREPARE = """
import patience
import torch
from accelerate import Accelerator
from traceml_hf.accelerate import TraceMLCallback

patience.wait_patiently()
accelerator = Accelerator(cpu=True)
model = torch.nn.Linear(8, 2)
data = torch.utils.data.TensorDataset(torch.randn(64, 8), torch.zeros(64, dtype=torch.long))
loader = torch.utils.data.DataLoader(data, batch_size=4)
model, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters()), loader)

def train(fail_at=None):
    for number, (inputs, labels) in enumerate(loader):
        accelerator.backward(torch.nn.functional.cross_entropy(model(inputs), labels))
        optimizer.step()
        optimizer.zero_grad()
        if number == fail_at:
            raise ValueError("no such label")
"""
FAIL_WITH = 'with TraceMLCallback(run_dir="with").attach(accelerator):\n    train(fail_at=9)'
FAIL_WITHOUT = 'TraceMLCallback(run_dir="open").attach(accelerator)\ntrain(fail_at=9)'
ATTACH = 'callback = TraceMLCallback(run_dir="later").attach(accelerator)'
TRAIN = "train()"
CLOSE = "callback.close()"
PLAIN = "train(fail_at=9)"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory) -> tuple[Path, list]:
    """The folder that it ran in, and its cells after execution."""
    folder = tmp_path_factory.mktemp("notebook")
    cells = [PREPARE, PLAIN, FAIL_WITHOUT, FAIL_WITH, ATTACH, TRAIN, CLOSE]
    document = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    client = nbclient.NotebookClient(
        document,
        timeout=int(LIMIT_S),
        startup_timeout=int(LIMIT_S),
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    return folder, document.cells


def text_of(cell) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def traceback_of(cell) -> list[str]:
    (error,) = [output for output in cell.outputs if output.output_type == "error"]
    return [line for block in error.traceback for line in block.splitlines() if "train(fail_at" not in line]


def summary_in(folder: Path):
    return decode_summary((folder / "final_summary.json").read_bytes())


@pytest.mark.parametrize("run_dir", ["open", "with"])
def test_a_cell_that_raises_ends_its_run_as_failed_with_its_error(notebook, run_dir):
    run = summary_in(notebook[0] / run_dir).run
    assert (run.status, run.error.type, run.error.message, run.steps) == ("failed", "ValueError", "no such label", 10)


@pytest.mark.parametrize("place", [2, 3])
def test_the_card_stands_below_the_cell(notebook, place):
    text = text_of(notebook[1][place])
    assert "TraceML: recording to" in text
    assert "no such label" in text


def test_the_traceback_of_the_cell_is_the_one_without_traceml(notebook):
    _, cells = notebook
    plain, recorded = traceback_of(cells[1]), traceback_of(cells[2])
    assert [line for line in recorded if "traceml" in line.lower() and "TraceMLCallback(run_dir" not in line] == []
    assert plain[-1] == recorded[-1]
    assert [line.split("(")[0] for line in plain if "in train" in line] == [
        line.split("(")[0] for line in recorded if "in train" in line
    ]


def test_a_run_may_stay_open_over_several_cells(notebook):
    folder, cells = notebook
    assert not any(output.output_type == "error" for place in (4, 5, 6) for output in cells[place].outputs)
    assert (summary_in(folder / "later").run.status, summary_in(folder / "later").run.steps) == ("completed", 16)
    assert text_of(cells[5]) == ""
