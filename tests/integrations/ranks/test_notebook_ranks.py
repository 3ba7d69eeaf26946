"""A notebook that forks its ranks: one report for all of them, below the cell."""

from __future__ import annotations

from pathlib import Path

import pytest
from rank_jobs import FITS, Launched
from waiting import LIMIT_S

pytestmark = pytest.mark.slow

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

PREPARE = f"""
import os, sys
os.environ['ACCELERATE_USE_CPU'] = 'yes'
sys.path.insert(0, {str(Path(FITS).parent)!r})
import fits
"""
CELLS = {
    "lightning": "fits.fit_lightning('both', 'ddp_notebook')",
    "accelerate": "from accelerate import notebook_launcher\n"
    "notebook_launcher(fits.fit_accelerate, ('both', ''), num_processes=2)",
}


@pytest.mark.parametrize("framework", sorted(CELLS))
def test_ranks_of_a_notebook_give_one_report_below_the_cell(framework, tmp_path):
    pytest.importorskip(framework)
    cells = [nbformat.v4.new_code_cell(source) for source in (PREPARE, CELLS[framework])]
    document = nbformat.v4.new_notebook(cells=cells)
    limit_s = int(LIMIT_S)
    client = nbclient.NotebookClient(
        document, timeout=limit_s, startup_timeout=limit_s, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = "".join(output.text for output in document.cells[1].outputs if output.output_type == "stream")
    done = Launched(tmp_path, [], shown)
    assert done.recorded_ranks("both") == [0, 1]
    assert (done.summary("both").run.status, done.summary("both").run.steps) == ("completed", 40)
    assert shown.count("TraceML: recording to") == 1
    assert shown.count("Where the time went") == 1
