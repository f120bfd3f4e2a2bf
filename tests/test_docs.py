"""What the documents show is what happens."""

import doctest
import re
import runpy
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("path", sorted(path for path in DOCS.glob("*.md") if ">>>" in path.read_text()), ids=lambda p: p.name)
def test_python_sessions_in_the_documents(path):
    found = doctest.testfile(str(path), module_relative=False)
    assert found.attempted > 0 and found.failed == 0


def test_the_notebook_runs_and_says_what_it_said():
    notebook = nbformat.read(DOCS / "example.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    before = [printed(cell) for cell in cells]
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    assert [printed(cell) for cell in cells] == before
    assert "the same logits: True" in before[-1]


def printed(cell):
    """What a cell printed; accuracies are rounded away, since they differ between processors."""
    text = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
    return re.sub(r"accuracy [0-9.]+%", "accuracy", text)


def test_the_reference_is_up_to_date():
    made = runpy.run_path(str(DOCS / "make_reference.py"))["reference"]()
    assert made == (DOCS / "reference.md").read_text(), "run python docs/make_reference.py"
