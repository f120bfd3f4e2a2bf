"""Table 1 for a terminal, as Markdown, as LaTeX, and as CSV for a spreadsheet."""

import csv
import io
import re
from typing import Literal, get_args

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ablate.errors import unknown
from ablate.labels import one_line, spreadsheet_cell
from ablate.reporting.table1_cells import QUANTITIES, Cell, Table1

Format = Literal["text", "csv", "markdown", "latex"]
HEADS = {
    "accuracy": "accuracy",
    "state": "fp32 state, MB",
    "packed": "packed file, MB",
    "latency": "ms an image",
    "returned": "ms until the call returned",
    "macs": "GMac",
    "bitops": "10^12 bitops",
    "parameters": "params, M",
}
ABOUT_ACCURACY = ("split", "sd", "failed")  # fields of a cell that have columns of their own in the CSV
LEGEND = "c counted, m measured here (n calls, or seeds), q quoted from the paper"
MARKDOWN = re.compile(r"([\\|`*<\[\]~&$]|(?<!\w)_|_(?!\w))")  # what formats text, or ends a cell
LATEX = {
    **{letter: f"\\{letter}" for letter in "&%_#${}"},
    "±": r"$\pm$",
    "`": r"\textasciigrave{}",
    '"': r"{\char34}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    # At the beginning of a row, these would be an option or a star of the row before.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "\\": r"\textbackslash{}",
}


def check_format(name: str) -> None:
    """Raises BadInput for a format that does not exist."""
    if name not in get_args(Format):
        raise unknown("format", name, get_args(Format))


def typeset(table: Table1, form: str) -> str:
    """The table as text.

    Args:
        table: The table.
        form: "csv", "markdown" or "latex"; LaTeX needs the package booktabs.
    """
    return {"csv": _csv, "markdown": _markdown, "latex": _latex}[form](table)


def terminal(table: Table1) -> Group:
    """The table as rich prints it, with the notes below."""
    heads = "", *(HEADS[name] for name in _columns(table))
    shown = Table(*heads, box=None, padding=(0, 1, 0, 0), caption=LEGEND, caption_justify="left")
    body = _body(table)
    for column, texts in zip(shown.columns[1:], list(zip(*body, strict=True))[1:], strict=True):
        column.justify = "right"
        column.min_width = max(len(" ".join(text.split()[:2])) for text in texts)  # a number and its letter
    for row, line in zip(table.rows, body, strict=True):
        shown.add_row(*map(Text, map(one_line, line)), style="dim" if row.quoted else "")
    return Group(shown, *(Text(f"\n{one_line(note)}") for note in table.notes))


def _columns(table: Table1) -> list[str]:
    return [name for name in QUANTITIES if any(name in row.cells for row in table.rows)]


def _body(table: Table1) -> list[list[str]]:
    columns = _columns(table)
    return [
        [row.name, *(_text(name, row.cells[name]) if name in row.cells else "" for name in columns)]
        for row in table.rows
    ]


def _text(name: str, cell: Cell) -> str:
    """A cell with the first letter of its source."""
    value = cell.value / QUANTITIES[name][1]
    rounded = {
        "accuracy": f"{value:.3f}",
        "returned": f"{value:.3f}",
        "latency": f"{value:.4g}" if value < 1000 else f"{value:.0f}",
    }
    text = cell.printed or rounded.get(name) or (f"{value:.2f}" if value >= 0.1 else f"{value:.2g}")
    if cell.sd is not None:
        text += f" ± {cell.sd:.3f}"
    n = f"n {cell.n}" if cell.n else ""
    failed = f"{cell.failed} failed" if cell.failed else ""
    about = ", ".join(filter(None, (cell.split, n, failed)))
    return f"{text} {cell.source[0]}" + (f" ({about})" if about else "")


def _csv(table: Table1) -> str:
    """Units as in --json, with a column for the source of each quantity, and without the notes."""
    fields = [f"{name}{suffix}" for name in _columns(table) for suffix in ("", "_source", "_n")]
    fields += [f"accuracy_{name}" for name in ABOUT_ACCURACY]
    out = io.StringIO()
    writer = csv.DictWriter(out, ["model", "beside", *fields], restval="", lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        line: dict[str, object] = {"model": spreadsheet_cell(row.name), "beside": row.beside}
        for name, cell in row.cells.items():
            line.update({name: cell.value, f"{name}_source": cell.source, f"{name}_n": cell.n})
            about = {f"{name}_{key}": getattr(cell, key) for key in ABOUT_ACCURACY}
            line.update({key: value for key, value in about.items() if value is not None})
        writer.writerow(line)
    return out.getvalue()


def _markdown(table: Table1) -> str:
    heads = ["model", *(HEADS[name] for name in _columns(table))]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *_body(table)]
    rows = [" | ".join(map(in_markdown, cells)) for cells in lines]
    body = "\n".join(f"| {row} |" for row in rows)
    notes = "\n".join(f"- {in_markdown(note)}" for note in table.notes)
    return f"{body}\n\n{LEGEND}.\n\n{notes}\n"


def in_markdown(text: str) -> str:
    """Write a text so that Markdown shows it as it is, on one line."""
    return MARKDOWN.sub(r"\\\1", one_line(text))


def _latex(table: Table1) -> str:
    heads = ["model", *(HEADS[name] for name in _columns(table))]
    lines = [" & ".join(map(_escaped, cells)) + r" \\" for cells in [heads, *_body(table)]]
    parts = [rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}", r"\toprule", lines[0]]
    for row, line in zip(table.rows, lines[1:], strict=True):
        parts += [r"\midrule", line] if row.quoted else [line]
    parts += [r"\bottomrule", r"\end{tabular}", "", r"\par\footnotesize", f"{_escaped(LEGEND)}.", ""]
    return "\n".join([*parts, *(f"{_escaped(note)}\n" for note in table.notes)])


def _escaped(text: str) -> str:
    plain = "".join(LATEX.get(letter, letter) for letter in one_line(text))
    return re.sub(r"([-'])(?=\1)", r"\1{}", plain)  # two of them would become a dash, or a quotation mark
