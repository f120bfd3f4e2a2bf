"""Writes docs/reference.md from the specs and the built-in files: python docs/make_reference.py"""

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from ablate.config import builtin
from ablate.config.objectives import OBJECTIVES
from ablate.config.samplers import TABLE as SAMPLERS
from ablate.config.search_space import Each, Range, SpaceSpec, load_space
from ablate.config.study_spec import EarlyStopping, Step, StudySpec, load_study
from ablate.config.trial_spec import LayerSpec, Recipe, Spec

SPECS = (StudySpec, Step, EarlyStopping, SpaceSpec, Each, Range, LayerSpec, Recipe)
SIGNS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
HEAD = """# Reference

Made by `python docs/make_reference.py` from the specs in `ablate/` and the built-in files; a test holds that it is up to date.

A study is a TOML file of the fields of StudySpec, with tables `[recipe]`, `[space]` and `[space.layer]`; a search space is
one of SpaceSpec. TOML has no null: the word `"none"` stands for it. `ablate study FILE --dry-run` checks a file and trains
nothing.
"""


def reference() -> str:
    """The whole page."""
    parts = [HEAD, "## Fields\n", *(_fields(cls) for cls in SPECS), "## Objectives\n"]
    parts.append(", ".join(f"`{name}` ({best})" for name, best in OBJECTIVES.items()) + ".\n")
    parts.append(
        "## Samplers\n\n| name | how it proposes | is steered by bounds | by several objectives |\n|---|---|---|---|"
    )
    for name, row in SAMPLERS.items():
        steered = " | ".join("yes" if flag else "no" for flag in (row.constraints, row.multi_objective))
        parts.append(f"| `{name}` | {_cell(row.description)} | {steered} |")
    parts.append("\nOr your own, `module:name`; see [guide.md](guide.md).\n")
    parts.append("## Search spaces\n\n| name | what varies | objectives |\n|---|---|---|")
    for name in builtin.names("search_spaces"):
        space = load_space(name)
        parts.append(f"| `{name}` | {_cell(space.description)} | {', '.join(space.objectives)} |")
    parts.append("\n## Studies\n\n| name | question | cost |\n|---|---|---|")
    for name in builtin.names("studies"):
        study = load_study(name)
        parts.append(f"| `{name}` | {study.question} | {study.cost or '-'} |")
    return "\n".join(parts) + "\n"


def _fields(cls: type[Spec]) -> str:
    """A class as a table of its fields; what a field is stands in the comment on its lines."""
    source = inspect.getsource(cls)
    comments = dict(_comments(source))
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    rows = []
    for field in body.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            about = " ".join(
                comments[line]
                for line in range(field.lineno, (field.end_lineno or 0) + 1)
                if line in comments
            )
            default = _default(field.value)
            rows.append(f"| `{field.target.id}` | {_kind(field)} | {default} | {_cell(about)} |")
    doc = inspect.cleandoc(cls.__doc__ or "")
    return (
        f"### {cls.__name__}\n\n{doc}\n\n| field | type | default | |\n|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")


def _kind(field: ast.AnnAssign) -> str:
    """A field's type and its bounds, as a reader wants them."""
    text = ast.unparse(field.annotation)
    bounds = [
        f"{SIGNS[name]} {value}"
        for part in (field.annotation, field.value)
        if part
        for name, value in _bounds(part)
    ]
    text = re.sub(r"Annotated\[(.*), (?:Field|PlainValidator)\(.*\)\]", r"\1", text)
    text = re.sub(r"Literal\[(.*?)\]", lambda found: found[1].replace("'", "`"), text)
    return _cell(", ".join([text, *bounds]))


def _bounds(part: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(part):
        if isinstance(node, ast.keyword) and node.arg in SIGNS:
            yield node.arg, ast.unparse(node.value).replace(" ** ", "^")


def _default(value: ast.expr | None) -> str:
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "Field":
        value = value.args[0] if value.args else None
    return _cell(f"`{ast.unparse(value)}`") if value else "required"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    (Path(__file__).parent / "reference.md").write_text(reference(), encoding="utf-8")
