"""Writes docs/architecture.md from the import contract and the packages' docstrings: python docs/make_architecture.py"""

import ast
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
HEAD = """# Architecture

For those who change `ablate`. Made by `python docs/make_architecture.py` from the import contract in `pyproject.toml`, which
import-linter holds, and from what each package says of itself.

A package imports only from those below it. Packages on one line do not import each other.
"""
FLOW = """
## How a study runs

1. `config` reads a study and its search space from TOML.
2. `engine` plans it and checks model, data and folder before anything is trained; `runs` claims the folder.
3. `search` proposes a trial, `execution` hands it to a Ray worker.
4. `training` makes its record, with `models`, `data`, `quantization` and `profiling`.
5. `runs` appends the record to the ledger, from which all else is rebuilt.
6. `analysis` fits and tests; `reporting` writes the tables, figures and the page, with `paper_figures`.

The names that users import (`from ablate import ...`) are listed in `ablate/__init__.py` and load when they are first used.
`ablate.spec` and `ablate.bitlinear` are names for users, too; nothing inside imports them.
"""


def page() -> str:
    """The document as it should be."""
    config = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    layers = config["tool"]["importlinter"]["contracts"][0]["layers"]
    drawn = [" | ".join(name.strip() for name in layer.split("|")) for layer in layers]
    width = max(map(len, drawn)) + 2
    rule = f"+{'-' * width}+"
    drawing = [rule, *(line for text in drawn for line in (f"|{text.center(width)}|", rule))]
    rows = [
        f"| `{name.strip()}` | {_summary(name.strip())} |" for layer in layers for name in layer.split("|")
    ]
    table = ["| package or module | what lives there |", "|---|---|", *rows]
    return HEAD + "\n```\n" + "\n".join(drawing) + "\n```\n\n" + "\n".join(table) + "\n" + FLOW


def _summary(name: str) -> str:
    path = HERE.parent / "ablate" / name
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split())


if __name__ == "__main__":
    (HERE / "architecture.md").write_text(page(), encoding="utf-8")
