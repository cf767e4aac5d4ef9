"""The notebook examples/look_at_a_run.ipynb runs from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SMALL

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("xarray")

NOTEBOOK = Path(__file__).parents[1] / "examples" / "look_at_a_run.ipynb"
FULL = '"warehouse/fast", ["datasets=last"]'


def test_the_notebook_runs(tmp_path):
    """With a small configuration of 12 episodes in place of the preset."""
    notebook = nbformat.read(NOTEBOOK, 4)
    small = ["datasets=last", *SMALL, "dataset_size=300"]
    (cell,) = (cell for cell in notebook.cells if FULL in cell.source)
    cell.source = cell.source.replace(FULL, f"None, {small!r}")
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=place).execute()
    last = notebook.cells[-1].outputs[-1].data["text/plain"]
    assert set(eval(last)) == {"class frequencies", "linear", "gru", "fnn"}
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    kinds = [kind for out in outputs for kind in out.get("data", ())]
    assert kinds.count("image/png") == 2 and kinds.count("image/gif") == 1


def test_the_notebook_is_kept_with_its_pictures():
    """GitHub shows them; no cell failed."""
    code = [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    outputs = [out for cell in code for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error"]
    assert sum("image/png" in out.get("data", ()) for out in outputs) == 2
    assert NOTEBOOK.stat().st_size < 600_000
