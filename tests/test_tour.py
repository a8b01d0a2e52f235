"""The notebook of the tour runs, in any folder, and names no path of a machine."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

NOTEBOOK = Path(__file__).parents[1] / "pipelines" / "tour.ipynb"


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:jupyter_client", "ignore::DeprecationWarning:zmq"
)
def test_the_tour_runs_without_an_error(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="the extra dev brings nbclient")
    pytest.importorskip("ipykernel", reason="the extra dev brings ipykernel")
    nbformat = pytest.importorskip("nbformat", reason="nbclient brings nbformat")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=200, resources=resources).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert sum("image/jpeg" in str(cell.outputs) for cell in code) >= 10


def test_the_tour_names_no_path_of_a_machine():
    found = re.findall(r"/(?:home|tmp|root|usr|opt|Users)/[^\"' ]*", NOTEBOOK.read_text("utf-8"))
    assert found == []


@pytest.mark.parametrize("is_there", [True, False])
def test_the_first_cell_installs_the_package_where_it_is_missing(monkeypatch, is_there):
    transform = pytest.importorskip("IPython.core.inputtransformer2", reason="ipykernel brings it")
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    source = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    asked = []
    shell = SimpleNamespace(run_line_magic=lambda *command: asked.append(command))
    found = object() if is_there else None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    code = transform.TransformerManager().transform_cell(source)
    exec(code, {"get_ipython": lambda: shell})
    assert asked == ([] if is_there else [("pip", "install --quiet crate-interp")])
