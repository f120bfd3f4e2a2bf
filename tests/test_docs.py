"""What the documents show is what happens."""

import doctest
import re
import runpy
import shlex
from pathlib import Path

import nbformat
import pytest
import typer
from nbclient import NotebookClient
from shell import ablate_commands, inline, parse, shell_lines

from ablate.cli.main import app
from ablate.config import builtin
from ablate.config.study_spec import load_study

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
VERBS = set(typer.main.get_command(app).commands)


@pytest.mark.parametrize(
    "path", sorted(path for path in DOCS.glob("*.md") if ">>>" in path.read_text()), ids=lambda p: p.name
)
def test_python_sessions_in_the_documents(path):
    found = doctest.testfile(str(path), module_relative=False)
    assert found.attempted > 0 and found.failed == 0


def shown():
    """Every `ablate` command of the pages' code, of the studies and of the help texts."""
    for page in PAGES:
        text = page.read_text()
        verbs = [
            code for code in inline(text) if code.startswith("ablate ") and len(code.split()) > 2
        ]  # not a verb's name
        yield from (
            (page.name, command) for line in shell_lines(text) + verbs for command in ablate_commands(line)
        )
    for cell in nbformat.read(DOCS / "example.ipynb", as_version=4).cells:
        yield from (
            ("example.ipynb", command) for code in inline(cell.source) for command in ablate_commands(code)
        )
    for name in builtin.names("studies"):
        yield from ((f"{name}.toml", command) for command in ablate_commands(load_study(name).command))
    for command in typer.main.get_command(app).commands.values():
        yield from (
            (f"{command.name} --help", found)
            for found in ablate_commands((command.help or "").partition("Example: ")[2])
        )


SHOWN = list(shown())


@pytest.mark.parametrize(
    ("where", "words"), SHOWN, ids=[f"{where}: {shlex.join(words)}" for where, words in SHOWN]
)
def test_the_command_line_reads_what_is_shown(where, words):
    parse(words)


def test_no_command_is_overlooked():
    by_page = {where: [words[1] for other, words in SHOWN if other == where] for where, _ in SHOWN}
    assert {verb for page in PAGES for verb in by_page.get(page.name, [])} == VERBS  # each is shown somewhere
    assert {f"{name}.toml" for name in builtin.names("studies")} <= set(by_page)
    for page in PAGES:
        lines = [
            line
            for line in shell_lines(page.read_text())
            if re.search(r"(^|[ /'])ablate [a-z]", line.partition("#")[0])
        ]
        assert len(by_page.get(page.name, [])) >= len(lines), page


@pytest.mark.parametrize(
    "line",
    [
        "ablate stduy",
        ".venv/bin/ablate study --spce bits  # a comment",
        "ablate data fetch cifar10 && ablate study ladder --trials",
        "ray job submit --address x -- ablate study --trials many --out /shared/first",
        "ray exec launcher.yaml 'ablate status RUN RUN'",
        "ablate study laddr",
        "ablate data get cifar10",
    ],
)
def test_a_command_that_is_wrong_would_be_found(line):
    with pytest.raises(typer.TyperException):
        for words in ablate_commands(line):
            parse(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.slow
def test_the_notebook_runs_and_says_what_it_said():
    notebook = nbformat.read(DOCS / "example.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    before = [printed(cell) for cell in cells]
    NotebookClient(notebook, timeout=1800, kernel_name="python3").execute()
    assert [printed(cell) for cell in cells] == before
    assert "the same logits: True" in before[-1]


def printed(cell):
    """What a cell printed; accuracies are rounded away, since they differ between processors."""
    text = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
    return re.sub(r"accuracy [0-9.]+%", "accuracy", text)


def test_the_reference_is_up_to_date():
    made = runpy.run_path(str(DOCS / "make_reference.py"))["reference"]()
    assert made == (DOCS / "reference.md").read_text(), "run python docs/make_reference.py"


def test_the_architecture_is_that_of_the_import_contract():
    made = runpy.run_path(str(DOCS / "make_architecture.py"))["page"]()
    assert made == (DOCS / "architecture.md").read_text(), "run python docs/make_architecture.py"
